//! The records of one generation: plan, final, run and the parts of a run; and
//! those beside them, pins and the keeper's claims. `docs/format.md` section 6.

use std::collections::BTreeSet;

use crate::{
    ids::{ClusterKey, SessionId},
    names::{PackName, RunPartName},
    protocol::{Final, Plan},
    record::{
        IndexBody, PADDING_STEP, REASON_BYTES_MAX, Width, bounded, decode_pack_names,
        encode_pack_names,
    },
    wire::{Damage, Fields},
};

/// Packs that one plan may condemn: with its names a record stays below 16 MiB.
pub(crate) const CONDEMNED_MAX: usize = 400_000;

/// What a part of a run holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PartKind {
    /// Packs and their chunks, by session.
    Packs,
    /// Which packs of others the live snapshots rely on.
    Relied,
}

impl PartKind {
    const fn byte(self) -> u8 {
        match self {
            Self::Packs => 1,
            Self::Relied => 2,
        }
    }
}

/// The body of `index/runs/<n>`: where the index is, and which sessions live.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RunBody {
    pub(crate) live: BTreeSet<SessionId>,
    pub(crate) parts: Vec<(PartKind, RunPartName)>,
}

/// The body of a part of kind `Packs`.
pub(crate) type PacksPart = Vec<(SessionId, IndexBody)>;
/// The body of a part of kind `Relied`.
pub(crate) type RelyPart = Vec<(SessionId, Vec<PackName>)>;

fn count(len: usize, out: &mut Vec<u8>) {
    // Every caller is bounded far below 2^32 by the size of a record.
    out.extend_from_slice(&(len as u32).to_le_bytes());
}

fn encode_sessions(sessions: &BTreeSet<SessionId>, out: &mut Vec<u8>) {
    count(sessions.len(), out);
    for session in sessions {
        out.extend_from_slice(session.as_bytes());
    }
}

fn decode_sessions(fields: &mut Fields<'_>) -> Result<BTreeSet<SessionId>, Damage> {
    let count = fields.count(16)?;
    let mut sessions = BTreeSet::new();
    for _ in 0..count {
        let session = SessionId::from_bytes(fields.array()?);
        if sessions.last().is_some_and(|last| *last >= session) {
            return Err(Damage::Field("order of sessions"));
        }
        sessions.insert(session);
    }
    Ok(sessions)
}

fn packs_of(set: &BTreeSet<PackName>) -> Vec<PackName> {
    set.iter().copied().collect()
}

pub(crate) fn encode_plan(plan: &Plan) -> Vec<u8> {
    let mut out = Vec::new();
    encode_sessions(&plan.forgets, &mut out);
    encode_pack_names(&packs_of(&plan.condemned), &mut out);
    out
}

pub(crate) fn decode_plan(bytes: &[u8]) -> Result<Plan, Damage> {
    let mut fields = Fields::new(bytes);
    let forgets = decode_sessions(&mut fields)?;
    let condemned = decode_pack_names(&mut fields)?.into_iter().collect();
    fields.padding(PADDING_STEP)?;
    Ok(Plan { condemned, forgets })
}

pub(crate) fn encode_final(last: &Final) -> Vec<u8> {
    let mut out = Vec::new();
    encode_pack_names(&packs_of(&last.packs), &mut out);
    out
}

pub(crate) fn decode_final(bytes: &[u8]) -> Result<Final, Damage> {
    let mut fields = Fields::new(bytes);
    let packs = decode_pack_names(&mut fields)?.into_iter().collect();
    fields.padding(PADDING_STEP)?;
    Ok(Final { packs })
}

impl RunBody {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        encode_sessions(&self.live, &mut out);
        count(self.parts.len(), &mut out);
        for (kind, part) in &self.parts {
            out.push(kind.byte());
            out.extend_from_slice(&part.run.to_le_bytes());
            out.extend_from_slice(&part.random);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut fields = Fields::new(bytes);
        let live = decode_sessions(&mut fields)?;
        let count = fields.count(25)?;
        let mut parts = Vec::with_capacity(count);
        for _ in 0..count {
            let kind = match fields.u8()? {
                1 => PartKind::Packs,
                2 => PartKind::Relied,
                _ => return Err(Damage::Field("kind of part")),
            };
            let run = fields.u64()?;
            let random = fields.array()?;
            parts.push((kind, RunPartName { run, random }));
        }
        fields.padding(PADDING_STEP)?;
        Ok(Self { live, parts })
    }
}

pub(crate) fn encode_packs_part(part: &[(SessionId, IndexBody)]) -> Vec<u8> {
    let mut out = Vec::new();
    count(part.len(), &mut out);
    for (session, body) in part {
        out.extend_from_slice(session.as_bytes());
        body.encode_packs(&mut out);
    }
    out
}

pub(crate) fn decode_packs_part(bytes: &[u8]) -> Result<PacksPart, Damage> {
    let mut fields = Fields::new(bytes);
    let count = fields.count(16 + 36)?;
    let mut part = Vec::with_capacity(count);
    for _ in 0..count {
        let session = SessionId::from_bytes(fields.array()?);
        part.push((session, IndexBody::decode_packs(&mut fields)?));
    }
    fields.padding(PADDING_STEP)?;
    Ok(part)
}

pub(crate) fn encode_rely_part(part: &[(SessionId, Vec<PackName>)]) -> Vec<u8> {
    let mut out = Vec::new();
    count(part.len(), &mut out);
    for (session, packs) in part {
        out.extend_from_slice(session.as_bytes());
        encode_pack_names(packs, &mut out);
    }
    out
}

pub(crate) fn decode_rely_part(bytes: &[u8]) -> Result<RelyPart, Damage> {
    let mut fields = Fields::new(bytes);
    let count = fields.count(16 + 4)?;
    let mut part = Vec::with_capacity(count);
    for _ in 0..count {
        let session = SessionId::from_bytes(fields.array()?);
        part.push((session, decode_pack_names(&mut fields)?));
    }
    fields.padding(PADDING_STEP)?;
    Ok(part)
}

/// The body of `keeper/<n>`: who claims the n-th term, and a random number that
/// tells two claims of one cluster apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) cluster: ClusterKey,
    pub(crate) nonce: [u8; 16],
}

impl Claim {
    pub(crate) fn encode(&self) -> Vec<u8> {
        [self.cluster.as_bytes().as_slice(), &self.nonce].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let mut fields = Fields::new(bytes);
        let cluster = ClusterKey::from_bytes(fields.array()?);
        let nonce = fields.array()?;
        fields.padding(PADDING_STEP)?;
        Ok(Self { cluster, nonce })
    }
}

/// The body of a pin: the reason, laid out as that of a forget.
pub(crate) fn decode_pin(bytes: &[u8]) -> Result<(), Damage> {
    let mut fields = Fields::new(bytes);
    bounded(&mut fields, REASON_BYTES_MAX, Width::U16, "reason")?;
    fields.padding(PADDING_STEP)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::names::ChunkKind;

    fn sessions() -> impl Strategy<Value = BTreeSet<SessionId>> {
        vec(any::<[u8; 16]>(), 0..8)
            .prop_map(|ids| ids.into_iter().map(SessionId::from_bytes).collect())
    }

    fn packs() -> impl Strategy<Value = BTreeSet<PackName>> {
        let name = (any::<[u8; 16]>(), any::<u32>()).prop_map(|(id, number)| PackName {
            session: SessionId::from_bytes(id),
            number,
            kind: ChunkKind::Metadata,
        });
        proptest::collection::btree_set(name, 0..8)
    }

    proptest! {
        #[test]
        fn plans_and_finals_round_trip(forgets in sessions(), condemned in packs()) {
            let last = Final { packs: condemned.clone() };
            prop_assert_eq!(decode_final(&encode_final(&last)), Ok(last));
            let plan = Plan { condemned, forgets };
            prop_assert_eq!(decode_plan(&encode_plan(&plan)), Ok(plan));
        }

        #[test]
        fn runs_round_trip(live in sessions(), parts in vec((any::<bool>(), any::<u64>()), 0..5)) {
            let part = |(packs, run): (bool, u64)| {
                let kind = if packs { PartKind::Packs } else { PartKind::Relied };
                (kind, RunPartName { run, random: [7; 16] })
            };
            let run = RunBody { live, parts: parts.into_iter().map(part).collect() };
            prop_assert_eq!(RunBody::decode(&run.encode()), Ok(run));
        }

        #[test]
        fn rely_parts_round_trip(sessions in sessions(), packs in packs()) {
            let names: Vec<_> = packs.into_iter().collect();
            let part: RelyPart = sessions.into_iter().map(|s| (s, names.clone())).collect();
            prop_assert_eq!(decode_rely_part(&encode_rely_part(&part)), Ok(part));
        }

        #[test]
        fn no_bytes_make_a_parser_panic(input in vec(any::<u8>(), 0..400)) {
            let _ = decode_plan(&input);
            let _ = decode_final(&input);
            let _ = RunBody::decode(&input);
            let _ = decode_packs_part(&input);
            let _ = decode_rely_part(&input);
            let _ = Claim::decode(&input);
            let _ = decode_pin(&input);
        }
    }
}
