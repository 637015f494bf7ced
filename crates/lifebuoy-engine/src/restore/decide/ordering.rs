//! The order of a plan's entries.

use super::owners::Links;
use crate::archive::TypeId;
use crate::restore::order::wave;
use crate::restore::survey::Survey;

/// The candidates in the order in which they are applied: by wave, depth, place
/// of the type in the wave, type, and key. Keys are ordered as an archive has
/// them, so that each type is read from front to back.
pub(super) fn order(survey: &Survey, links: &Links) -> Vec<u32> {
    let types: Vec<(usize, TypeId)> = survey
        .types
        .iter()
        .map(|t| (wave(&t.group, &t.kind).1, t.id()))
        .collect();
    let mut order: Vec<u32> = (0u32..).take(survey.candidates.len()).collect();
    order.sort_by(|a, b| {
        let (place_a, place_b) = (&links.places[*a as usize], &links.places[*b as usize]);
        let (a, b) = (
            &survey.candidates[*a as usize],
            &survey.candidates[*b as usize],
        );
        (place_a.wave, place_a.depth, &types[a.kind as usize])
            .cmp(&(place_b.wave, place_b.depth, &types[b.kind as usize]))
            .then_with(|| a.source.cmp_as_archived(&b.source))
    });
    order
}
