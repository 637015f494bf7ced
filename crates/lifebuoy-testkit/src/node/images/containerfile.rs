//! The last stage of the repository's Containerfile, as far as its image can be
//! made without the base that it names. What it does not understand is an
//! error: an image of tests that differs from that of users proves nothing.

use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use super::containerfile_path;

/// What the image has on top of Debian.
#[derive(Debug, PartialEq)]
pub(super) struct Stage {
    /// The Debian packages that it adds.
    pub(super) packages: Vec<String>,
    /// The folder that the built programs are copied to.
    pub(super) programs: String,
    /// How it is run, as image configurations say it.
    pub(super) config: Value,
}

pub(super) fn read() -> Result<Stage> {
    let path = containerfile_path();
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text)
}

fn parse(text: &str) -> Result<Stage> {
    let mut stage = Stage {
        packages: Vec::new(),
        programs: String::new(),
        config: Value::Object(Map::new()),
    };
    for instruction in last_stage(text) {
        let (word, rest) = instruction
            .split_once(' ')
            .with_context(|| format!("an instruction without anything: {instruction}"))?;
        match word {
            // Seen in lists of images only.
            "LABEL" => {}
            "RUN" => stage.packages = installed(rest)?,
            "COPY" => stage.programs = copied(rest)?,
            "USER" => stage.config["User"] = json!(rest),
            "EXPOSE" => stage.config["ExposedPorts"] = json!({format!("{rest}/tcp"): {}}),
            "ENTRYPOINT" => stage.config["Entrypoint"] = serde_json::from_str(rest)?,
            "CMD" => stage.config["Cmd"] = serde_json::from_str(rest)?,
            _ => bail!("the image of tests does not know how to follow {instruction:?}"),
        }
    }
    Ok(stage)
}

/// The instructions after the last `FROM`, each on one line.
fn last_stage(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let mut stage = Vec::new();
    for line in joined
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        match line.starts_with("FROM ") {
            true => stage.clear(),
            false => stage.push(line.to_owned()),
        }
    }
    stage
}

fn installed(shell: &str) -> Result<Vec<String>> {
    let words = shell.split_whitespace().collect::<Vec<_>>().join(" ");
    words
        .strip_prefix("apt-get update && apt-get install --yes --no-install-recommends ")
        .and_then(|rest| rest.strip_suffix(" && rm -rf /var/lib/apt/lists/*"))
        .map(|packages| packages.split(' ').map(str::to_owned).collect())
        .with_context(|| format!("the image of tests cannot do more than install: {words:?}"))
}

fn copied(rest: &str) -> Result<String> {
    rest.strip_prefix("--from=build /out/ ")
        .map(str::to_owned)
        .with_context(|| format!("the image of tests has nothing but the programs: COPY {rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_containerfile_is_understood() {
        let stage = read().unwrap();
        assert_eq!(stage.programs, "/usr/local/bin/");
        assert_eq!(stage.packages, ["ca-certificates"]);
        assert_eq!(
            stage.config["Entrypoint"],
            json!(["/usr/local/bin/lifebuoy"])
        );
        assert_ne!(stage.config["User"], Value::Null);
    }

    #[test]
    fn an_unknown_instruction_is_an_error() {
        let error = parse("FROM a\nADD x /x\nFROM b\nVOLUME /data\n").unwrap_err();
        assert!(error.to_string().contains("VOLUME"), "{error}");
    }
}
