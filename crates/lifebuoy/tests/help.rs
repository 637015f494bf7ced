//! What `--help` says of every command, as snapshots; and that both names of
//! the program have the same grammar.

use clap::{Command, builder::ValueRange};
use lifebuoy_cli::{Program, grammar};

/// The help of `command` and of everything below it, by what a person types.
fn helps(command: &mut Command, typed: &str, found: &mut Vec<(String, String)>) {
    found.push((typed.to_owned(), command.render_long_help().to_string()));
    for below in command.get_subcommands_mut() {
        let typed = format!("{typed} {}", below.get_name());
        helps(below, &typed, found);
    }
}

fn all(program: Program) -> Vec<(String, String)> {
    let mut command = grammar(program).term_width(100);
    command.build();
    let typed = command.get_bin_name().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    helps(&mut command, &typed, &mut found);
    found
}

#[test]
fn the_help_of_every_command() {
    for (typed, help) in all(Program::Lifebuoy) {
        insta::assert_snapshot!(typed.replace(' ', "-"), help);
    }
}

#[test]
fn the_plugin_is_the_same_program() {
    let plain: Vec<String> = all(Program::Lifebuoy)
        .into_iter()
        .map(|(typed, _)| typed)
        .collect();
    let plugin = all(Program::KubectlPlugin);
    for (typed, help) in &plugin {
        assert!(help.contains("Usage: kubectl lifebuoy"), "{typed}:\n{help}");
    }
    let plugin: Vec<String> = plugin
        .into_iter()
        .map(|(typed, _)| typed.trim_start_matches("kubectl ").to_owned())
        .collect();
    assert_eq!(plain, plugin);
}

#[test]
fn no_value_of_the_environment_is_shown() {
    for (typed, help) in all(Program::Lifebuoy) {
        assert!(!help.contains("[env: LIFEBUOY_PASSPHRASE"), "{typed}");
        for line in help
            .lines()
            .filter(|line| line.contains("[env: ") && !line.contains("which"))
        {
            assert!(!line.contains('='), "{typed}: {line}");
        }
    }
}

#[test]
fn the_grammar_is_sound() {
    for program in [Program::Lifebuoy, Program::KubectlPlugin] {
        grammar(program).debug_assert();
    }
    // A flag that takes a word takes one: `--map-namespace a=b c` is a mistake.
    let mut command = grammar(Program::Lifebuoy);
    command.build();
    let restore = command.find_subcommand_mut("restore").unwrap();
    let create = restore.find_subcommand_mut("create").unwrap();
    let mapping = create
        .get_arguments()
        .find(|arg| arg.get_id() == "map_namespace")
        .unwrap();
    assert_eq!(mapping.get_num_args(), Some(ValueRange::SINGLE));
}
