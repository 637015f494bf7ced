//! The corpus as ordinary tests, and what it begins with: objects as the
//! library writes them.

use super::*;
use crate::{
    KdfCost,
    format::Features,
    generation::PartKind,
    keyslot::wrap,
    record::{PackEntry, Purpose},
};

#[path = "../../../../fuzz/inputs.rs"]
mod inputs;

#[test]
fn every_input_of_the_corpus_passes() {
    inputs::run_corpus(TARGETS);
}

#[test]
fn every_seed_is_sound() {
    let seeds = seeds();
    let seeds: Vec<_> = seeds
        .iter()
        .map(|seed| (seed.target, &*seed.name, &*seed.input))
        .collect();
    inputs::run_seeds(TARGETS, &seeds);
}

/// Each target reaches what it is for: its seeds are read, not refused.
#[test]
fn the_seeds_are_read_by_the_parsers_they_are_for() {
    for Seed {
        target,
        name,
        input,
    } in seeds()
    {
        let read = match target {
            "object_name" => Name::parse(std::str::from_utf8(&input).unwrap()).is_some(),
            "format_object" => sound(FORMAT, &input),
            "key_slot" => {
                let slot = Slot::parse(&SLOT.key(), &input).unwrap();
                let passphrase = Passphrase::new(PASSPHRASE).unwrap();
                slot.unwrap(&SLOT.key(), &passphrase).unwrap().is_some()
            }
            "record_object" => {
                let (kind, object) = input.split_first().unwrap();
                sound(records()[usize::from(*kind)].0, object)
            }
            "record_body" => match input.split_first().unwrap() {
                (0, plain) => OpenBody::decode(plain).is_ok(),
                (1, plain) => EndBody::decode(plain).is_ok(),
                (2, plain) => decode_forget(plain).is_ok(),
                (4, plain) => decode_plan(plain).is_ok(),
                (5, plain) => decode_final(plain).is_ok(),
                (6, plain) => RunBody::decode(plain).is_ok(),
                (7, plain) => decode_packs_part(plain).is_ok(),
                (8, plain) => decode_rely_part(plain).is_ok(),
                (9, plain) => Claim::decode(plain).is_ok(),
                (_, plain) => decode_beat(plain).is_ok(),
            },
            "index_body" => {
                let of = |layout| IndexBody::decode(layout, &input).is_ok();
                of(LAYOUT) || of(LAYOUT_2)
            }
            "pack_object" => sound(Name::Pack(PACK), &input),
            "pack_trailer" => ChunkEntry::decode_all(&mut Fields::new(&input)).is_ok(),
            "pack_chunk" => {
                let codec = Codec::from_byte(input[0]).unwrap();
                let raw = Fields::new(&input[1..]).u32().unwrap() as usize;
                let coders = &shared().coders;
                coders.decode(codec, raw, input[5..].to_vec()).is_ok()
            }
            other => panic!("{other} has no seeds"),
        };
        assert!(read, "{target}: {name}");
    }
}

struct Seed {
    target: &'static str,
    name: String,
    input: Vec<u8>,
}

fn seed(target: &'static str, name: impl Into<String>, input: impl Into<Vec<u8>>) -> Seed {
    Seed {
        target,
        name: name.into(),
        input: input.into(),
    }
}

fn seeds() -> Vec<Seed> {
    let mut seeds = names();
    seeds.extend(format_and_slots());
    seeds.extend(bodies());
    for (kind, (name, of, plain)) in (0_u8..).zip(records()) {
        let rng = &mut StdRng::seed_from_u64(1);
        let object = shared()
            .records()
            .seal(&name.key(), of, layout_of(of, &plain), &plain, rng)
            .unwrap();
        let kind_name = format!("{of:?}").to_lowercase();
        let input = [&[kind][..], &object].concat();
        seeds.push(seed("record_object", kind_name, input));
    }
    seeds.extend(packs());
    seeds
}

fn names() -> Vec<Seed> {
    let all = [
        ("format", FORMAT),
        ("slot", SLOT),
        ("open", Name::Open(CLUSTER, 12, SESSION)),
        ("end", Name::End(CLUSTER, SESSION)),
        ("index", Name::Index(SESSION)),
        ("forget", Name::Forget(SESSION)),
        ("beat", Name::Beat(SESSION, u64::MAX)),
        ("pack", Name::Pack(PACK)),
        (
            "metadata-pack",
            Name::Pack(PackName {
                kind: ChunkKind::Metadata,
                number: u32::MAX,
                ..PACK
            }),
        ),
        ("probe", Name::Probe([8; 16])),
        ("plan", Name::Plan(7)),
        ("final", Name::Final(7)),
        ("run", Name::Run(7)),
        ("part", Name::RunPart(PART)),
        ("pin", Name::Pin(SESSION, 2)),
        ("keeper", Name::Keeper(3)),
        ("mend", MEND),
        ("mended-pack", Name::Mend(Mended::Pack(PACK))),
    ];
    let of = |(name, of): (&str, Name)| seed("object_name", name, of.key());
    all.into_iter().map(of).collect()
}

fn format_and_slots() -> Vec<Seed> {
    let format = |may_ignore, read_only, must_know| {
        let features = Features {
            may_ignore,
            read_only,
            must_know,
        };
        encode_format(&FORMAT.key(), LAYOUT, REPOSITORY, features, &shared().keys)
    };
    let passphrase = Passphrase::new(PASSPHRASE).unwrap();
    let slot = wrap(
        &SLOT.key(),
        REPOSITORY,
        &MasterKey::new(MASTER),
        &passphrase,
        KdfCost::cheapest(),
        &mut StdRng::seed_from_u64(2),
    );
    vec![
        seed("format_object", "plain", format(0, 0, 0)),
        seed("format_object", "features", format(1, 2, 4)),
        seed("key_slot", "cheapest", slot.unwrap()),
    ]
}

fn open_body(label: &'static [u8]) -> Vec<u8> {
    let body = OpenBody {
        purpose: Purpose::Backup,
        generation: 0,
        random: RANDOM,
        label: label.into(),
    };
    body.encode()
}

fn end_body(summary: &'static [u8]) -> Vec<u8> {
    let body = EndBody::Committed {
        generation: 0,
        sequence: 3,
        root: ChunkId::from_bytes([9; 32]),
        packs: 2,
        summary: summary.into(),
    };
    body.encode()
}

/// The newer layout of an index is longer by its list of packs.
fn layout_of(kind: ObjectType, plain: &[u8]) -> u16 {
    let old = kind == ObjectType::Index && IndexBody::decode(LAYOUT, plain).is_ok();
    if kind == ObjectType::Index && !old {
        LAYOUT_2
    } else {
        first_layout(kind)
    }
}

fn index(packs: u32, chunks: u32) -> Vec<u8> {
    index_that_relies(packs, chunks, None).encode()
}

fn index_that_relies(packs: u32, chunks: u32, relies: Option<Vec<PackName>>) -> IndexBody {
    let chunk = |n: u32| ChunkEntry {
        id: ChunkId::from_bytes([n as u8; 32]),
        codec: if n.is_multiple_of(2) {
            Codec::Stored
        } else {
            Codec::Zstd
        },
        raw: 100 + n,
        stored: 100 + n + TAG_BYTES as u32 - n % 2,
    };
    let pack = |number: u32| PackEntry {
        number,
        kind: if number.is_multiple_of(2) {
            ChunkKind::Data
        } else {
            ChunkKind::Metadata
        },
        length: 4096,
        commitment: [7; 32],
        chunks: (0..chunks).map(|n| chunk(number * chunks + n)).collect(),
    };
    IndexBody {
        random: RANDOM,
        packs: (0..packs).map(pack).collect(),
        relies,
    }
}

fn plan() -> Plan {
    Plan {
        condemned: [PACK].into(),
        forgets: [SESSION].into(),
    }
}

fn last() -> Final {
    Final {
        packs: [PACK].into(),
    }
}

fn run() -> RunBody {
    RunBody {
        live: [SESSION].into(),
        parts: vec![(PartKind::Packs, PART), (PartKind::Relied, PART)],
    }
}

fn packs_part() -> Vec<u8> {
    encode_packs_part(&[(SESSION, index_that_relies(2, 3, None))])
}

fn claim() -> Claim {
    Claim {
        cluster: CLUSTER,
        nonce: [6; 16],
    }
}

fn bodies() -> Vec<Seed> {
    let record = |kind: u8, name: &str, plain: Vec<u8>| {
        seed("record_body", name, [&[kind][..], &plain].concat())
    };
    let fenced = EndBody::Fenced { generation: 5 };
    let mut padded = encode_forget("no longer needed");
    padded.resize(RECORD_STEP, 0);
    vec![
        record(0, "open", open_body(b"nightly")),
        record(0, "open-without-label", open_body(b"")),
        record(1, "committed", end_body(b"{\"version\":1}")),
        record(1, "committed-without-summary", end_body(b"")),
        record(1, "fenced", fenced.encode()),
        record(2, "forget", encode_forget("von Hand, für immer")),
        record(2, "forget-padded", padded),
        record(3, "beat", encode_beat(42)),
        record(4, "plan", encode_plan(&plan())),
        record(5, "final", encode_final(&last())),
        record(6, "run", run().encode()),
        record(7, "part-of-packs", packs_part()),
        record(
            8,
            "part-of-relied",
            encode_rely_part(&[(SESSION, vec![PACK])]),
        ),
        record(9, "keeper", claim().encode()),
        seed(
            "index_body",
            "that-relies",
            index_that_relies(2, 2, Some(vec![PACK])).encode(),
        ),
        seed("index_body", "empty", index(0, 0)),
        seed("index_body", "one", index(1, 1)),
        seed("index_body", "some", index(3, 7)),
    ]
}

/// The records of `record_object`, in the order of the byte that chooses one.
fn records() -> [(Name, ObjectType, Vec<u8>); 12] {
    [
        (
            Name::Open(CLUSTER, 0, SESSION),
            ObjectType::Open,
            open_body(b"nightly"),
        ),
        (
            Name::End(CLUSTER, SESSION),
            ObjectType::End,
            end_body(b"{}"),
        ),
        (Name::Index(SESSION), ObjectType::Index, index(2, 3)),
        (
            Name::Forget(SESSION),
            ObjectType::Forget,
            encode_forget("old"),
        ),
        (Name::Beat(SESSION, 1), ObjectType::Beat, encode_beat(1)),
        (Name::Plan(1), ObjectType::Plan, encode_plan(&plan())),
        (Name::Final(1), ObjectType::Final, encode_final(&last())),
        (Name::Run(1), ObjectType::Run, run().encode()),
        (Name::RunPart(PART), ObjectType::RunPart, packs_part()),
        (
            Name::Pin(SESSION, 1),
            ObjectType::Pin,
            encode_forget("kept"),
        ),
        (Name::Keeper(1), ObjectType::Keeper, claim().encode()),
        (MEND, ObjectType::Mend, index(1, 2)),
    ]
}

fn packs() -> Vec<Seed> {
    let text = "lifebuoy ".repeat(40).into_bytes();
    let noise = blake3::hash(b"noise").as_bytes().to_vec();
    let one = [noise.clone()];
    let some = [text.clone(), Vec::new(), noise.clone(), vec![0; 3000]];
    let mut seeds = Vec::new();
    for (name, chunks) in [("one", &one[..]), ("some", &some[..])] {
        let shared = shared();
        let mut pack = PackBuilder::new(&shared.keys, REPOSITORY, &RANDOM, PACK, Vec::new());
        for chunk in chunks {
            let mut lease = shared.coders.lease();
            let encoded = lease.encode(Compression::Small, chunk).unwrap();
            pack.push(shared.keys.chunk_id(chunk), &encoded).unwrap();
        }
        let sealed = pack.finish().unwrap();
        let mut trailer = (chunks.len() as u32).to_le_bytes().to_vec();
        for entry in &sealed.entry.chunks {
            entry.encode(&mut trailer);
        }
        seeds.push(seed("pack_object", name, sealed.bytes));
        seeds.push(seed("pack_trailer", name, trailer));
    }
    for (name, plain) in [("text", text), ("empty", Vec::new()), ("noise", noise)] {
        let shared = shared();
        let mut lease = shared.coders.lease();
        let encoded = lease.encode(Compression::Small, &plain).unwrap();
        let mut input = vec![encoded.codec.byte()];
        input.extend_from_slice(&(plain.len() as u32).to_le_bytes());
        input.extend_from_slice(encoded.bytes);
        seeds.push(seed("pack_chunk", name, input));
    }
    seeds
}
