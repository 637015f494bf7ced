//! The keys of objects: building and parsing them, `docs/format.md` section 2.
//! Never shows anything but random ids, keyed hashes and counters.

use crate::ids::{ClusterKey, SessionId, hex};

/// Metadata or data: which kind of pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChunkKind {
    /// Contents: Kubernetes objects, files, blocks.
    Data,
    /// What leads to contents: manifests, catalogues, reports.
    Metadata,
}

/// The type byte of an object's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ObjectType {
    Format = 1,
    Slot = 2,
    Open = 3,
    End = 4,
    Index = 5,
    Forget = 6,
    Beat = 7,
    Plan = 8,
    Run = 9,
    Final = 10,
    RunPart = 11,
    Pin = 12,
    Keeper = 13,
    Mend = 14,
    DataPack = 16,
    MetadataPack = 17,
}

impl ObjectType {
    pub(crate) const fn byte(self) -> u8 {
        self as u8
    }
}

impl ChunkKind {
    pub(crate) const fn object_type(self) -> ObjectType {
        match self {
            Self::Data => ObjectType::DataPack,
            Self::Metadata => ObjectType::MetadataPack,
        }
    }

    pub(crate) fn from_type(byte: u8) -> Option<Self> {
        [Self::Data, Self::Metadata]
            .into_iter()
            .find(|kind| kind.object_type().byte() == byte)
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Metadata => "meta",
        }
    }
}

/// One pack: whose it is, its number, its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PackName {
    pub(crate) session: SessionId,
    pub(crate) number: u32,
    pub(crate) kind: ChunkKind,
}

/// A key that this version of the format gives a meaning to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Format(u32),
    Slot([u8; 16]),
    Open(ClusterKey, u64, SessionId),
    End(ClusterKey, SessionId),
    Index(SessionId),
    Forget(SessionId),
    Beat(SessionId, u64),
    Pack(PackName),
    Probe([u8; 16]),
    Plan(u64),
    Final(u64),
    Run(u64),
    RunPart(RunPartName),
    /// The n-th change of a snapshot's pin: pinned by odd ones, not by even ones.
    Pin(SessionId, u64),
    Keeper(u64),
    /// What stands in for an object that is damaged or lost.
    Mend(Mended),
}

/// An object that something stands in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Mended {
    /// The index delta of a session.
    Index(SessionId),
    /// A part of a run.
    Part(RunPartName),
    /// A pack: nothing stands in for it, but nothing is built on it.
    Pack(PackName),
}

/// A part of a run: the run it was first written for, and a random id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RunPartName {
    pub(crate) run: u64,
    pub(crate) random: [u8; 16],
}

pub(crate) const FORMAT: &str = "format";
pub(crate) const KEYS: &str = "keys";
pub(crate) const OPEN: &str = "open";
pub(crate) const END: &str = "end";
pub(crate) const INDEX: &str = "index";
pub(crate) const INDEX_RUNS: &str = "index/runs";
pub(crate) const FORGET: &str = "forget";
pub(crate) const PROBE: &str = "probe";
pub(crate) const GC: &str = "gc";
pub(crate) const INDEX_PARTS: &str = "index/parts";
pub(crate) const PACKS: &str = "packs";
pub(crate) const BEAT: &str = "beat";
pub(crate) const PIN: &str = "pin";
pub(crate) const KEEPER: &str = "keeper";
pub(crate) const MEND: &str = "mend";

impl Name {
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Format(n) => format!("format/{n}"),
            Self::Slot(slot) => format!("keys/{}", hex(slot)),
            Self::Open(cluster, generation, session) => {
                format!("open/{cluster}/{generation}-{session}")
            }
            Self::End(cluster, session) => format!("end/{cluster}/{session}"),
            Self::Index(session) => format!("index/{session}"),
            Self::Forget(session) => format!("forget/{session}"),
            Self::Beat(session, n) => format!("beat/{session}/{n}"),
            Self::Pack(pack) => pack.key(),
            Self::Probe(random) => format!("probe/{}", hex(random)),
            Self::Plan(n) => format!("gc/{n}.plan"),
            Self::Final(n) => format!("gc/{n}.final"),
            Self::Run(n) => format!("index/runs/{n}"),
            Self::RunPart(part) => format!("index/parts/{}-{}", part.run, hex(&part.random)),
            Self::Pin(session, n) => format!("pin/{session}/{n}"),
            Self::Keeper(n) => format!("keeper/{n}"),
            Self::Mend(mended) => format!("mend/{}", mended.name().key()),
        }
    }

    /// `None` for a key that is not of this version: it is ignored.
    pub(crate) fn parse(key: &str) -> Option<Self> {
        let (first, rest) = key.split_once('/')?;
        Some(match first {
            FORMAT => Self::Format(number(rest)?),
            KEYS => Self::Slot(random(rest)?),
            OPEN => {
                let (cluster, rest) = rest.split_once('/')?;
                let (generation, session) = rest.split_once('-')?;
                Self::Open(
                    cluster.parse().ok()?,
                    number(generation)?,
                    session.parse().ok()?,
                )
            }
            END => {
                let (cluster, session) = rest.split_once('/')?;
                Self::End(cluster.parse().ok()?, session.parse().ok()?)
            }
            INDEX => match rest.split_once('/') {
                None => Self::Index(rest.parse().ok()?),
                Some(("runs", n)) => Self::Run(number(n)?),
                Some(("parts", part)) => {
                    let (run, id) = part.split_once('-')?;
                    Self::RunPart(RunPartName {
                        run: number(run)?,
                        random: random(id)?,
                    })
                }
                Some(_) => return None,
            },
            FORGET => Self::Forget(rest.parse().ok()?),
            BEAT => {
                let (session, n) = rest.split_once('/')?;
                Self::Beat(session.parse().ok()?, number(n)?)
            }
            PACKS => Self::Pack(PackName::parse(rest).filter(|pack| pack.key() == key)?),
            PROBE => Self::Probe(random(rest)?),
            GC => match rest.split_once('.')? {
                (n, "plan") => Self::Plan(number(n)?),
                (n, "final") => Self::Final(number(n)?),
                _ => return None,
            },
            PIN => {
                let (session, n) = rest.split_once('/')?;
                Self::Pin(session.parse().ok()?, number(n)?)
            }
            KEEPER => Self::Keeper(number(rest)?),
            MEND => Self::Mend(match Self::parse(rest)? {
                Self::Index(session) => Mended::Index(session),
                Self::RunPart(part) => Mended::Part(part),
                Self::Pack(pack) => Mended::Pack(pack),
                _ => return None,
            }),
            _ => return None,
        })
    }
}

impl Mended {
    /// The object that it is about.
    pub(crate) fn name(&self) -> Name {
        match self {
            Self::Index(session) => Name::Index(*session),
            Self::Part(part) => Name::RunPart(*part),
            Self::Pack(pack) => Name::Pack(*pack),
        }
    }
}

impl PackName {
    pub(crate) fn key(&self) -> String {
        let [spread, ..] = self.session.as_bytes();
        let [low, ..] = self.number.to_le_bytes();
        format!(
            "packs/{}/{}-{}.{}",
            hex(&[spread.wrapping_add(low)]),
            self.session,
            self.number,
            self.kind.suffix()
        )
    }

    fn parse(rest: &str) -> Option<Self> {
        let (_, name) = rest.split_once('/')?;
        let (name, suffix) = name.split_once('.')?;
        let (session, n) = name.split_once('-')?;
        let kind = [ChunkKind::Data, ChunkKind::Metadata]
            .into_iter()
            .find(|kind| kind.suffix() == suffix)?;
        Some(Self {
            session: session.parse().ok()?,
            number: number(n)?,
            kind,
        })
    }
}

fn random(text: &str) -> Option<[u8; 16]> {
    text.parse::<SessionId>().ok().map(|id| *id.as_bytes())
}

/// Decimal without sign or leading zeros: one number has one spelling.
fn number<T: std::str::FromStr + std::fmt::Display>(text: &str) -> Option<T> {
    let number: T = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> impl Strategy<Value = Name> {
        let id = any::<[u8; 16]>();
        (id, id, any::<u32>(), any::<u64>(), 0..17_u8).prop_map(|(a, b, small, big, which)| {
            let session = SessionId::from_bytes(a);
            let cluster = ClusterKey::from_bytes(b);
            let kind = if small % 2 == 0 {
                ChunkKind::Data
            } else {
                ChunkKind::Metadata
            };
            match which {
                0 => Name::Format(small),
                1 => Name::Slot(a),
                2 => Name::Open(cluster, big, session),
                3 => Name::End(cluster, session),
                4 => Name::Index(session),
                5 => Name::Forget(session),
                6 => Name::Beat(session, big),
                7 => Name::Pack(PackName {
                    session,
                    number: small,
                    kind,
                }),
                8 => Name::Plan(big),
                9 => Name::Final(big),
                10 => Name::Run(big),
                11 => Name::RunPart(RunPartName {
                    run: big,
                    random: b,
                }),
                12 => Name::Pin(session, big),
                13 => Name::Keeper(big),
                14 => Name::Mend(Mended::Index(session)),
                15 => Name::Mend(Mended::Part(RunPartName {
                    run: big,
                    random: b,
                })),
                _ => Name::Probe(a),
            }
        })
    }

    proptest! {
        #[test]
        fn every_name_round_trips(name in names()) {
            prop_assert_eq!(Name::parse(&name.key()), Some(name));
        }

        #[test]
        fn any_text_parses_or_not_but_has_one_spelling(key in "[a-z0-9/.-]{0,80}") {
            if let Some(name) = Name::parse(&key) {
                prop_assert_eq!(name.key(), key);
            }
        }
    }

    #[test]
    fn other_spellings_of_a_number_are_not_names() {
        assert_eq!(Name::parse("format/1"), Some(Name::Format(1)));
        assert_eq!(Name::parse("format/01"), None);
        assert_eq!(Name::parse("format/+1"), None);
        assert_eq!(Name::parse("gc/7.plan"), Some(Name::Plan(7)));
        assert_eq!(Name::parse("gc/07.plan"), None);
        assert_eq!(Name::parse("index/runs/3"), Some(Name::Run(3)));
        assert_eq!(Name::parse("index/other/3"), None);
    }
}
