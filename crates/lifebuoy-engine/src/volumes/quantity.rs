//! Sizes as Kubernetes writes them.

/// Binary and decimal suffixes of a quantity, and what they stand for.
const SUFFIXES: &[(&str, u128)] = &[
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];

/// Digits behind the point that count.
const DECIMALS_MAX: usize = 9;

/// The bytes that a quantity of Kubernetes stands for, such as `1.5Gi`, `10G` or
/// `1e9`, rounded up; none if it is no such text, or too much.
#[must_use]
pub fn bytes_of_quantity(text: &str) -> Option<u64> {
    let (number, factor) = split(text)?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if number.is_empty() || number == "." || !all_digits(whole) || !all_digits(decimals) {
        return None;
    }
    let decimals = &decimals[..decimals.len().min(DECIMALS_MAX)];
    let scale = 10_u128.pow(u32::try_from(decimals.len()).ok()?);
    let digits: u128 = format!("0{whole}{decimals}").parse().ok()?;
    u64::try_from(digits.checked_mul(factor)?.div_ceil(scale)).ok()
}

fn split(text: &str) -> Option<(&str, u128)> {
    for (suffix, factor) in SUFFIXES {
        if let Some(number) = text.strip_suffix(suffix) {
            return Some((number, *factor));
        }
    }
    match text.split_once(['e', 'E']) {
        Some((number, exponent)) => {
            let exponent: u32 = exponent.trim_start_matches('+').parse().ok()?;
            Some((number, 10_u128.checked_pow(exponent)?))
        }
        None => Some((text, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_what_kubernetes_takes_it_for() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("1Gi", Some(1 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("10G", Some(10_000_000_000)),
            ("1e3", Some(1000)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("0.1", Some(1)),
            (".5Ki", Some(512)),
            ("", None),
            (".", None),
            ("-1", None),
            ("1 Gi", None),
            ("Gi", None),
            ("1e99", None),
            ("99999999999999999999999999999999999999999", None),
            ("17Ei", None),
        ] {
            assert_eq!(bytes_of_quantity(text), bytes, "{text:?}");
        }
    }
}
