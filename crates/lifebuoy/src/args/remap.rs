//! What a restore changes.

use clap::Args;
use lifebuoy_api::{Mapping, NameMapping, PrefixMapping};

#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Mapping")]
pub(crate) struct RemapArgs {
    /// Rename a namespace, everywhere where it is named: shop=store, shop-*=store-*. May be repeated, as all of these.
    #[arg(long, value_name = "FROM=TO", value_parser = pair)]
    pub(crate) map_namespace: Vec<Pair>,

    /// Rename a storage class.
    #[arg(long, value_name = "FROM=TO", value_parser = pair)]
    pub(crate) map_storage_class: Vec<Pair>,

    /// Rename an ingress class or gateway class.
    #[arg(long, value_name = "FROM=TO", value_parser = pair)]
    pub(crate) map_ingress_class: Vec<Pair>,

    /// Replace a prefix of container images: registry.a.example/=registry.b.example/mirror/.
    #[arg(long, value_name = "FROM=TO", value_parser = pair)]
    pub(crate) map_image: Vec<Pair>,

    /// Replace a host name of Ingresses, Gateways and routes: *.a.example=*.b.example.
    #[arg(long, value_name = "FROM=TO", value_parser = pair)]
    pub(crate) map_host: Vec<Pair>,
}

/// What becomes what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    from: String,
    to: String,
}

fn pair(text: &str) -> Result<Pair, String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() && !to.contains('=') => Ok(Pair {
            from: from.to_owned(),
            to: to.to_owned(),
        }),
        _ => Err("expected FROM=TO, such as shop=store".to_owned()),
    }
}

impl RemapArgs {
    /// Puts what was given before what `mapping` has: the first match wins.
    pub(crate) fn apply(&self, mapping: &mut Mapping) {
        let Self {
            map_namespace,
            map_storage_class,
            map_ingress_class,
            map_image,
            map_host,
        } = self;
        prepend(&mut mapping.namespaces, map_namespace, name);
        prepend(&mut mapping.storage_classes, map_storage_class, name);
        prepend(&mut mapping.ingress_classes, map_ingress_class, name);
        prepend(&mut mapping.images, map_image, prefix);
        prepend(&mut mapping.hosts, map_host, name);
    }
}

fn name(pair: &Pair) -> NameMapping {
    NameMapping {
        from: pair.from.clone(),
        to: pair.to.clone(),
    }
}

fn prefix(pair: &Pair) -> PrefixMapping {
    PrefixMapping {
        from: pair.from.clone(),
        to: pair.to.clone(),
    }
}

fn prepend<T>(list: &mut Vec<T>, given: &[Pair], make: fn(&Pair) -> T) {
    list.splice(0..0, given.iter().map(make));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_has_two_sides() {
        let parsed = pair("shop-*=store-*").unwrap();
        assert_eq!((&*parsed.from, &*parsed.to), ("shop-*", "store-*"));
        let image = pair("registry.a.example:5000/=registry.b.example/mirror/").unwrap();
        assert_eq!(image.from, "registry.a.example:5000/");
        for text in ["shop", "=store", "shop=", "a=b=c", ""] {
            assert_eq!(
                pair(text),
                Err("expected FROM=TO, such as shop=store".into()),
                "{text}"
            );
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let mut mapping = Mapping::default();
        mapping.namespaces.push(NameMapping {
            from: "*".into(),
            to: "old-*".into(),
        });
        let flags = RemapArgs {
            map_namespace: vec![pair("a=b").unwrap()],
            ..Default::default()
        };
        flags.apply(&mut mapping);
        let sources: Vec<&str> = mapping.namespaces.iter().map(|m| &*m.from).collect();
        assert_eq!(sources, ["a", "*"]);
    }
}
