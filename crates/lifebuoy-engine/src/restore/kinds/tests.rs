use serde_json::json;

use super::test_objects::{object, record_of, remapped, rules, shop};
use crate::restore::{Context, Prepared, prepare};

/// What the shop becomes, object by object, as YAML.
fn prepared(spec: serde_json::Value) -> String {
    let rules = rules(spec);
    let mut context = Context::new(None);
    context.keep_volume("archive");
    context.keep_status(crate::archive::TypeId::new("shop.example.com", "orders"));
    let mut out = String::new();
    for body in shop() {
        let t = record_of(&body);
        let object = object(&body);
        out.push_str(&format!("# {} {}\n", t.id(), object.key));
        match prepare(&rules, &context, &t, &object) {
            Prepared::Write(draft) => {
                out.push_str(&serde_saphyr::to_string(&draft.body).unwrap());
                for owner in &draft.owners {
                    out.push_str(&format!("# owner: {} {}\n", owner.kind, owner.name));
                }
                for note in &draft.notes {
                    out.push_str(&format!("# note: {note}\n"));
                }
            }
            Prepared::NotSelected => out.push_str("# not selected\n"),
            Prepared::Leave(why) => out.push_str(&format!("# left out: {why}\n")),
            Prepared::Broken(reason, message) => {
                out.push_str(&format!("# broken: {reason}: {message}\n"));
            }
        }
        out.push('\n');
    }
    out
}

#[test]
fn objects_lose_what_belongs_to_the_source_cluster_and_nothing_else() {
    insta::assert_snapshot!("shop_as_it_was", prepared(json!({})));
}

#[test]
fn names_are_mapped_in_everything() {
    insta::assert_snapshot!("shop_remapped", prepared(remapped()));
}
