use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use lifebuoy_api::Selection;

use super::*;

fn parse(selection: &Selection) -> Result<Selector, Error> {
    Selector::parse(selection, "spec.selection")
}

fn selection(namespaces: &[&str], excluded: &[&str]) -> Selection {
    Selection {
        namespaces: namespaces.iter().map(|s| (*s).to_owned()).collect(),
        excluded_namespaces: excluded.iter().map(|s| (*s).to_owned()).collect(),
        ..Selection::default()
    }
}

#[test]
fn an_empty_selection_takes_everything() {
    let all = parse(&Selection::default()).unwrap();
    assert!(all.namespace("shop") && all.resource("apps", "deployments"));
    assert!(all.all_namespaces() && all.all_resources());
    assert_eq!(all.exact_namespaces(), None);
    assert!(all.labels(&BTreeMap::new()));
}

#[test]
fn globs_select_namespaces_and_exclusion_wins() {
    let some = parse(&selection(&["shop-*", "team-?", "{a,b}"], &["shop-old"])).unwrap();
    for (name, expected) in [
        ("shop-web", true),
        ("shop-old", false),
        ("shop", false),
        ("team-1", true),
        ("team-12", false),
        ("a", true),
        ("c", false),
    ] {
        assert_eq!(some.namespace(name), expected, "{name}");
    }
    assert!(!some.all_namespaces());
    assert_eq!(some.exact_namespaces(), None);
}

#[test]
fn exact_namespaces_come_in_the_order_of_their_keys() {
    let some = parse(&selection(&["a", "a-b", "c", "a"], &["c"])).unwrap();
    // `-` sorts before `/`, so the objects of `a-b` come before those of `a`.
    assert_eq!(some.exact_namespaces(), Some(vec!["a-b", "a"]));
}

#[test]
fn types_are_named_with_their_group() {
    let some = parse(&Selection {
        resources: vec![
            "configmaps".into(),
            "deployments.apps".into(),
            "*.example.com".into(),
        ],
        excluded_resources: vec!["logs.example.com".into()],
        ..Selection::default()
    })
    .unwrap();
    assert!(some.resource("", "configmaps") && some.resource("apps", "deployments"));
    assert!(some.resource("example.com", "tickets") && some.resource("a.example.com", "x"));
    assert!(!some.resource("example.com", "logs") && !some.resource("", "secrets"));
    assert!(some.group_possible("example.com") && some.group_possible("apps"));
    let core_only = parse(&Selection {
        resources: vec!["configmaps".into()],
        ..Selection::default()
    })
    .unwrap();
    assert!(!core_only.group_possible("example.com"));
}

#[test]
fn label_expressions_work_as_in_kubernetes() {
    let expression = |operator: &str, values: &[&str]| LabelSelectorRequirement {
        key: "tier".to_owned(),
        operator: operator.to_owned(),
        values: (!values.is_empty()).then(|| values.iter().map(|s| (*s).to_owned()).collect()),
    };
    let labels = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect::<BTreeMap<_, _>>()
    };
    let db = labels(&[("tier", "db")]);
    let none = labels(&[]);
    for (operator, values, of_db, of_none) in [
        ("In", vec!["db", "web"], true, false),
        ("NotIn", vec!["db"], false, true),
        ("Exists", vec![], true, false),
        ("DoesNotExist", vec![], false, true),
    ] {
        let selector = parse(&Selection {
            label_selector: Some(LabelSelector {
                match_expressions: Some(vec![expression(operator, &values)]),
                match_labels: None,
            }),
            ..Selection::default()
        })
        .unwrap();
        assert_eq!(selector.labels(&db), of_db, "{operator}");
        assert_eq!(selector.labels(&none), of_none, "{operator}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_path() {
    let bad_glob = parse(&selection(&["ok", "a[b"], &[])).unwrap_err();
    insta::assert_snapshot!(bad_glob, @"spec.selection.namespaces[1]: `a[b` is not a glob: unclosed character class; missing ']'");
    let bad_operator = parse(&Selection {
        label_selector: Some(LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "tier".to_owned(),
                operator: "Like".to_owned(),
                values: None,
            }]),
            match_labels: None,
        }),
        ..Selection::default()
    })
    .unwrap_err();
    insta::assert_snapshot!(bad_operator, @"spec.selection.labelSelector.matchExpressions[0].operator: `Like` is not an operator: use In, NotIn, Exists or DoesNotExist");
    let no_values = parse(&Selection {
        label_selector: Some(LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "tier".to_owned(),
                operator: "In".to_owned(),
                values: None,
            }]),
            match_labels: None,
        }),
        ..Selection::default()
    })
    .unwrap_err();
    insta::assert_snapshot!(no_values, @"spec.selection.labelSelector.matchExpressions[0].values: operator In needs at least one value");
    let bad_value = parse(&Selection {
        label_selector: Some(LabelSelector {
            match_expressions: None,
            match_labels: Some(BTreeMap::from([(
                "app".to_owned(),
                "not a value".to_owned(),
            )])),
        }),
        ..Selection::default()
    })
    .unwrap_err();
    insta::assert_snapshot!(bad_value, @"spec.selection.labelSelector.matchLabels[app]: `not a value` is not a label value: at most 63 letters, digits, `-`, `_`, `.`, beginning and ending with a letter or digit");
}
