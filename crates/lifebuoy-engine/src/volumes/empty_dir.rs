//! How the emptyDir of a pod is called among the volumes of a recovery point: as no claim
//! can be called, so that whoever knows claims alone mistakes it for none. Pure.

use lifebuoy_api::{Problem, Reason};

use crate::archive::ObjectKey;

/// How many emptyDirs a warning names.
const NAMED_MAX: usize = 3;

/// The key of the record of an emptyDir: the name has a slash, and no object's name has one.
#[must_use]
pub fn empty_dir_key(namespace: &str, pod: &str, volume: &str) -> ObjectKey {
    ObjectKey::new(namespace, format!("{pod}/{volume}"))
}

/// The pod and the name of the volume, if the key is that of an emptyDir.
#[must_use]
pub fn empty_dir_of(key: &ObjectKey) -> Option<(&str, &str)> {
    key.name.split_once('/')
}

/// What a problem with the data of a volume is about.
#[must_use]
pub fn subject(key: &ObjectKey) -> String {
    match empty_dir_of(key) {
        Some((pod, volume)) => format!("pods {}/{pod}, emptyDir {volume}", key.namespace),
        None => format!("persistentvolumeclaims {key}"),
    }
}

/// What a restore says of emptyDirs that were saved.
pub(crate) fn not_restored<'a>(saved: impl Iterator<Item = &'a ObjectKey>) -> Option<Problem> {
    let names: Vec<_> = saved.map(ToString::to_string).collect();
    if names.is_empty() {
        return None;
    }
    let more = match names.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!(
        "the pods of a restore are other pods, whose emptyDirs are not filled; \
         `lifebuoy restore files --volume` brings their files: {}{more}",
        names[..names.len().min(NAMED_MAX)].join(", ")
    );
    Some(Problem::warning(
        Reason::EmptyDirNotRestored,
        "pods",
        &message,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_dir_is_called_as_no_claim_is() {
        let key = empty_dir_key("shop", "web-0", "cache");
        assert_eq!(key.to_string(), "shop/web-0/cache");
        assert_eq!(empty_dir_of(&key), Some(("web-0", "cache")));
        assert_eq!(subject(&key), "pods shop/web-0, emptyDir cache");
        let claim = ObjectKey::new("shop", "data");
        assert_eq!(empty_dir_of(&claim), None);
        assert_eq!(subject(&claim), "persistentvolumeclaims shop/data");
    }

    #[test]
    fn one_warning_speaks_of_all() {
        assert_eq!(not_restored([].into_iter()), None);
        let keys: Vec<_> = (0..5)
            .map(|n| empty_dir_key("shop", &format!("web-{n}"), "cache"))
            .collect();
        let said = not_restored(keys.iter()).unwrap().message;
        assert!(
            said.ends_with("shop/web-0/cache, shop/web-1/cache, shop/web-2/cache and 2 more"),
            "{said}"
        );
    }
}
