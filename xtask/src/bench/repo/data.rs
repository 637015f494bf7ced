//! What is saved: data sets made by a recipe from a seed, the same on every
//! machine.

use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

/// A data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DataSet {
    /// 75,000 files of source text, about 1.2 GB.
    Source,
    /// 700 MB of programs, and of a database.
    Binaries,
    /// 1 GB that cannot be compressed.
    Incompressible,
    /// A sparse image of 4 GB of which a third is written; then 2 % of it changes
    /// in aligned runs of 4 MiB, then 2 % in random pages of 8 KiB.
    Image,
    /// 2 million tiny files.
    Tiny,
}

/// How large a data set is, of the whole: 1 is the size that is compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale(pub(crate) f64);

impl Scale {
    fn of(self, count: usize) -> usize {
        ((count as f64 * self.0) as usize).max(1)
    }
}

impl DataSet {
    pub(crate) const ALL: [Self; 5] = [
        Self::Source,
        Self::Binaries,
        Self::Incompressible,
        Self::Image,
        Self::Tiny,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Binaries => "binaries",
            Self::Incompressible => "incompressible",
            Self::Image => "image",
            Self::Tiny => "tiny",
        }
    }

    pub(crate) fn is_device(self) -> bool {
        self == Self::Image
    }

    /// Makes it below `folder`, if it is not there from an earlier run, and returns
    /// what is to be saved.
    pub(crate) fn make(self, folder: &Path, scale: Scale, seed: u64) -> Result<PathBuf> {
        let name = format!("{}-{}-{seed}", self.name(), scale.0);
        let (place, done) = (folder.join(&name), folder.join(format!("{name}.made")));
        let root = match self {
            Self::Image => place.join("image"),
            _ => place.clone(),
        };
        // An image is changed by those who save it.
        if done.exists() && self != Self::Image {
            return Ok(root);
        }
        super::remove(&place)?;
        fs::create_dir_all(&place)?;
        let mut rng = StdRng::seed_from_u64(seed);
        match self {
            Self::Source => source(&place, scale, &mut rng),
            Self::Binaries => binaries(&place, scale, &mut rng),
            Self::Incompressible => incompressible(&place, scale, &mut rng),
            Self::Image => image(&root, scale, &mut rng),
            Self::Tiny => tiny(&place, scale, &mut rng),
        }
        .with_context(|| format!("making {}", place.display()))?;
        File::create(done)?;
        Ok(root)
    }
}

/// Changes 2 % of an image: `run` bytes at a time, at multiples of `run`.
pub(crate) fn change(image: &Path, run: usize, seed: u64) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let file = fs::OpenOptions::new().write(true).open(image)?;
    let length = usize::try_from(file.metadata()?.len())?;
    let mut bytes = vec![0; run];
    for _ in 0..(length / 50).div_ceil(run) {
        let at = rng.random_range(0..length / run) * run;
        half_random(&mut bytes, &mut rng);
        file.write_all_at(&bytes, at as u64)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Words that are drawn as in a language: few of them most of the time.
struct Words(Vec<String>);

impl Words {
    fn draw(count: usize, rng: &mut StdRng) -> Self {
        const SYLLABLES: [&str; 24] = [
            "re", "con", "get", "set", "id", "er", "ta", "ble", "in", "out", "map", "or", "str",
            "buf", "ptr", "al", "lo", "ck", "is", "un", "de", "co", "val", "ue",
        ];
        let word = |rng: &mut StdRng| -> String {
            (0..rng.random_range(1..5))
                .map(|_| SYLLABLES[rng.random_range(0..24)])
                .collect()
        };
        Self((0..count).map(|_| word(rng)).collect())
    }

    fn pick(&self, rng: &mut StdRng) -> &str {
        let uniform: f64 = rng.random();
        let at = (self.0.len() as f64).powf(uniform) as usize;
        &self.0[(at - 1).min(self.0.len() - 1)]
    }

    /// A line of program text.
    fn line(&self, text: &mut String, rng: &mut StdRng) {
        const MARKS: [&str; 10] = [" = ", "(", ").", ", ", " + ", "::", " -> ", "[", "] ", ";"];
        let indent = 4 * rng.random_range(0..5);
        text.extend(std::iter::repeat_n(' ', indent));
        for _ in 0..rng.random_range(1..8) {
            text.push_str(self.pick(rng));
            text.push_str(MARKS[rng.random_range(0..10)]);
        }
        text.push('\n');
    }
}

/// Projects with a vocabulary of their own. One file in twelve is a copy of one
/// that was there before, as licences and vendored sources are.
fn source(place: &Path, scale: Scale, rng: &mut StdRng) -> Result<()> {
    const FILES: usize = 75_000;
    const PROJECT: usize = 250;
    let common = Words::draw(4_000, rng);
    let mut known: Vec<String> = Vec::new();
    for project in 0..scale.of(FILES / PROJECT) {
        let own = Words::draw(600, rng);
        let half = if project % 10 == 9 { "dropped" } else { "kept" };
        for file in 0..PROJECT {
            let folder = place.join(format!(
                "{half}/project-{project:03}/src/part-{}",
                file / 20
            ));
            fs::create_dir_all(&folder)?;
            let path = folder.join(format!("file-{file:03}.rs"));
            if rng.random_bool(1.0 / 12.0) && !known.is_empty() {
                let copy = &known[rng.random_range(0..known.len())];
                fs::write(path, copy)?;
                continue;
            }
            let mut text = String::new();
            let length = (16_000.0 * log_normal(rng)) as usize;
            let mut lines: Vec<std::ops::Range<usize>> = Vec::new();
            while text.len() < length {
                // Much of a program is like what stands above.
                if lines.len() > 10 && rng.random_bool(0.45) {
                    let again = lines[rng.random_range(0..lines.len())].clone();
                    text.extend_from_within(again);
                    continue;
                }
                let start = text.len();
                let words = if rng.random_bool(0.6) { &own } else { &common };
                words.line(&mut text, rng);
                lines.push(start..text.len());
            }
            fs::write(path, &text)?;
            if known.len() < 400 && text.len() < 40_000 {
                known.push(text);
            }
        }
    }
    Ok(())
}

/// About 1 in the middle, a sixth and six at the ends.
fn log_normal(rng: &mut StdRng) -> f64 {
    let normal: f64 = (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
    (normal * 0.9).exp() * 0.67
}

/// Programs: instructions, tables of addresses, texts, and zeros between. And a
/// database of pages of rows.
fn binaries(place: &Path, scale: Scale, rng: &mut StdRng) -> Result<()> {
    let words = Words::draw(3_000, rng);
    for n in 0..scale.of(50) {
        let half = if n % 10 == 9 { "dropped" } else { "kept" };
        let folder = place.join(half);
        fs::create_dir_all(&folder)?;
        let mut file = BufWriter::new(File::create(folder.join(format!("program-{n:02}")))?);
        let mut address: u64 = 0x40_0000;
        for _ in 0..1_000 {
            match rng.random_range(0..10) {
                0..6 => instructions(&mut file, rng)?,
                6..8 => {
                    for _ in 0..1_024 {
                        address += rng.random_range(1..64) * 8;
                        file.write_all(&address.to_le_bytes())?;
                    }
                }
                8 => {
                    let mut text = String::new();
                    while text.len() < 8 * 1024 {
                        words.line(&mut text, rng);
                    }
                    file.write_all(text.as_bytes())?;
                }
                _ => file.write_all(&[0; 8 * 1024])?,
            }
        }
        file.flush()?;
    }
    let mut file = BufWriter::new(File::create(place.join("kept/database"))?);
    for page in 0..scale.of(40_000) as u64 {
        let mut bytes = Vec::with_capacity(8192);
        bytes.extend_from_slice(&page.to_le_bytes());
        while bytes.len() < 7_000 {
            bytes.extend_from_slice(&rng.random::<u32>().to_le_bytes());
            bytes.extend_from_slice(&page.to_le_bytes());
            bytes.extend_from_slice(words.pick(rng).as_bytes());
            bytes.extend_from_slice(b"\0\0\x01\0");
        }
        bytes.resize(8192, 0);
        file.write_all(&bytes)?;
    }
    file.flush()?;
    Ok(())
}

/// 8 KiB in which few bytes are frequent, as in machine code.
fn instructions(file: &mut impl Write, rng: &mut StdRng) -> Result<()> {
    const FREQUENT: [u8; 16] = [
        0x48, 0x89, 0x8b, 0x0f, 0x00, 0x24, 0xe8, 0xc3, 0x83, 0x44, 0x74, 0x85, 0xff, 0x4c, 0x41,
        0x31,
    ];
    let mut bytes = vec![0_u8; 8 * 1024];
    rng.fill_bytes(&mut bytes);
    for byte in &mut bytes {
        if *byte < 160 {
            *byte = FREQUENT[usize::from(*byte % 16)];
        }
    }
    Ok(file.write_all(&bytes)?)
}

fn incompressible(place: &Path, scale: Scale, rng: &mut StdRng) -> Result<()> {
    let mut bytes = vec![0; 1 << 20];
    for n in 0..10 {
        let folder = place.join(if n == 9 { "dropped" } else { "kept" });
        fs::create_dir_all(&folder)?;
        let mut file = File::create(folder.join(format!("random-{n}")))?;
        for _ in 0..scale.of(100) {
            rng.fill_bytes(&mut bytes);
            file.write_all(&bytes)?;
        }
    }
    Ok(())
}

fn image(place: &Path, scale: Scale, rng: &mut StdRng) -> Result<()> {
    const RUN: usize = 4 << 20;
    let runs = scale.of(1024);
    let mut file = File::create(place)?;
    file.set_len((runs * RUN) as u64)?;
    let mut bytes = vec![0; RUN];
    for run in 0..runs {
        if rng.random_bool(1.0 / 3.0) {
            half_random(&mut bytes, rng);
            file.seek(SeekFrom::Start((run * RUN) as u64))?;
            file.write_all(&bytes)?;
        }
    }
    file.sync_all()?;
    Ok(())
}

/// Of every 512 bytes half is random and half repeats it.
fn half_random(bytes: &mut [u8], rng: &mut StdRng) {
    for block in bytes.chunks_mut(512) {
        let (random, again) = block.split_at_mut(256);
        rng.fill_bytes(random);
        again.copy_from_slice(random);
    }
}

fn tiny(place: &Path, scale: Scale, rng: &mut StdRng) -> Result<()> {
    let words = Words::draw(2_000, rng);
    for folder in 0..scale.of(2_000) {
        let half = if folder % 10 == 9 { "dropped" } else { "kept" };
        let folder = place.join(format!("{half}/{:02}/{folder:04}", folder % 50));
        fs::create_dir_all(&folder)?;
        for file in 0..1_000 {
            let mut text = format!("{}\n", rng.random::<u64>());
            words.line(&mut text, rng);
            fs::write(folder.join(format!("{file:03}")), text)?;
        }
    }
    Ok(())
}
