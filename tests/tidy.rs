//! Holds the source tree against the architecture: which room may import which, and how every file is to read.
//!
//! The table of rooms is the one of `docs/ARCHITECTURE.md`: a new edge between rooms changes both together.

mod source;

use std::path::{Path, PathBuf};

use source::{Source, sources_below};

/// Rooms under `src/` and what each may import from the crate besides itself.
const ROOMS: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("sys", &["base"]),
    ("record", &["base"]),
    ("json", &["base"]),
    ("metrics", &["base"]),
    ("handoff", &["base", "sys"]),
    ("shard", &["base", "sys", "record", "json", "metrics", "handoff"]),
    ("writer", &["base", "sys", "record", "metrics", "handoff"]),
    ("log", &["base", "sys", "record"]),
    ("control", &["base", "sys", "record", "json", "metrics", "handoff", "shard", "writer", "log"]),
];
/// What `main.rs` may use of the library.
const MAIN_MAY_USE: &[&str] = &["control", "log"];
/// Rooms without system calls: what they must not name.
const PURE_ROOMS: &[&str] = &["base", "record", "json", "metrics"];
/// Names of system interfaces that a pure room has no use for.
const IMPURE: &[&str] =
    &["libc::", "std::fs", "std::net", "std::thread", "Instant::now", "SystemTime::now", "io_uring"];
/// Where unsafe code may be.
const UNSAFE_PLACES: &[&str] = &[
    "src/sys/",
    "src/handoff/",
    "src/json/simd/",
    "src/shard/arena",
    "tests/no_allocation.rs",
    "benches/handoff.rs",
    "benches/segment.rs",
    "loadtest/src/sys/",
];
/// File names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "misc", "common", "stuff"];
/// Text that marks unfinished work. Spelt so that this file does not hold it.
const UNFINISHED: &[&str] = &[
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("db", "g!("),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("TO", "DO"),
    concat!("HA", "CK"),
];
/// Text that is true of one machine only.
const PRIVATE: &[&str] = &[concat!("/", "work/"), concat!("/", "home/")];
/// A file longer than this holds more than one concept.
const FILE_LINES_MAX: usize = 700;
/// A function longer than this cannot be read as a sentence.
const FUNCTION_LINES_MAX: usize = 120;
/// Lines above an unsafe block in which its reason stands.
const SAFETY_LINES_MAX: usize = 12;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn all_sources() -> Vec<Source> {
    let sources: Vec<Source> = ["src", "tests", "benches", "fuzz/fuzz_targets", "loadtest", "tuning"]
        .iter()
        .flat_map(|directory| sources_below(&root(), &root().join(directory)))
        .collect();
    assert!(sources.len() > 20, "the sources were not found");
    sources
}

/// Fails with all that is wrong at once.
#[track_caller]
fn assert_none(wrongs: Vec<String>) {
    assert!(wrongs.is_empty(), "\n{}\n", wrongs.join("\n"));
}

fn room_of(source: &Source) -> Option<&str> {
    let below = source.path.strip_prefix("src/")?;
    let first = below.split('/').next()?;
    (below.contains('/') || below != "lib.rs" && below != "main.rs").then(|| first.trim_end_matches(".rs"))
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    let mut wrongs = Vec::new();
    for source in all_sources() {
        let Some(room) = room_of(&source) else { continue };
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            wrongs.push(format!("{}: room `{room}` is not in the table", source.path));
            continue;
        };
        for (line, used) in source.crate_paths("crate::") {
            if used != room && !allowed.contains(&used.as_str()) && ROOMS.iter().any(|(name, _)| *name == used) {
                wrongs.push(format!("{}:{line}: {room} must not import {used}", source.path));
            }
        }
        // The other way out of a room: up to the root and down again.
        for (line, used) in source.crate_paths("super::super::") {
            if used != room && ROOMS.iter().any(|(name, _)| *name == used) {
                wrongs.push(format!("{}:{line}: name {used} by crate::", source.path));
            }
        }
    }
    assert_none(wrongs);
}

#[test]
fn the_table_names_every_room_and_no_cycle() {
    for entry in std::fs::read_dir(root().join("src")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            assert!(ROOMS.iter().any(|(room, _)| *room == name), "src/{name} is not in the table");
        } else {
            assert!(matches!(name.as_str(), "lib.rs" | "main.rs"), "src/{name}: code belongs to a room");
        }
    }
    for (at, (room, allowed)) in ROOMS.iter().enumerate() {
        for other in *allowed {
            let other_at = ROOMS.iter().position(|(name, _)| name == other);
            assert!(other_at < Some(at) && other_at.is_some(), "{room} imports {other}, which is not above it");
        }
    }
}

#[test]
fn main_only_dispatches() {
    let main = Source::read(&root(), &root().join("src/main.rs"));
    let wrongs = main
        .crate_paths("tidegate::")
        .into_iter()
        .filter(|(_, used)| !MAIN_MAY_USE.contains(&used.as_str()))
        .map(|(line, used)| format!("src/main.rs:{line}: uses {used}"))
        .collect();
    assert_none(wrongs);
}

#[test]
fn pure_rooms_make_no_system_calls() {
    let mut wrongs = Vec::new();
    for source in all_sources() {
        if !room_of(&source).is_some_and(|room| PURE_ROOMS.contains(&room)) {
            continue;
        }
        for (line, text) in source.code_lines() {
            for name in IMPURE {
                if text.contains(name) {
                    wrongs.push(format!("{}:{line}: {name} in a pure room", source.path));
                }
            }
        }
    }
    assert_none(wrongs);
}

#[test]
fn control_is_the_binary_s_alone() {
    let mut wrongs = Vec::new();
    for source in all_sources() {
        let outside = ["benches/", "loadtest/", "tuning/"].iter().any(|place| source.path.starts_with(place));
        if outside && source.crate_paths("tidegate::").iter().any(|(_, used)| used == "control") {
            wrongs.push(format!("{}: control is the binary's; ask it over its port", source.path));
        }
    }
    assert_none(wrongs);
}

#[test]
fn the_load_generator_shares_no_code_with_the_server() {
    let mut wrongs = Vec::new();
    for source in all_sources().into_iter().filter(|source| source.path.starts_with("loadtest/")) {
        for (line, used) in source.crate_paths("tidegate::") {
            wrongs.push(format!("{}:{line}: uses {used}: generator and judge must not share its bugs", source.path));
        }
    }
    assert_none(wrongs);
}

#[test]
fn unsafe_code_stays_at_its_address_and_says_why() {
    let mut wrongs = Vec::new();
    for source in all_sources() {
        let at_its_address = UNSAFE_PLACES.iter().any(|place| source.path.starts_with(place));
        for (line, text) in source.code_lines() {
            if !source::has_word(&text, "unsafe") {
                continue;
            }
            if !at_its_address {
                wrongs.push(format!(
                    "{}:{line}: unsafe outside of sys, handoff, json's vectors and the shard's arena",
                    source.path
                ));
            }
            let above = source.lines_above(line, SAFETY_LINES_MAX);
            let reason =
                if source::has_word(&text, "fn") && !text.contains("unsafe {") { "# Safety" } else { "SAFETY:" };
            let explained = above.iter().any(|text| text.contains(reason) || text.contains("SAFETY:"));
            // A function of an `unsafe impl` is explained there.
            let inherited = source::has_word(&text, "fn") && source.text().contains("unsafe impl");
            if !explained && !inherited {
                wrongs.push(format!("{}:{line}: unsafe without {reason}", source.path));
            }
        }
    }
    assert_none(wrongs);
}

#[test]
fn the_root_denies_unsafe_code() {
    let lib = Source::read(&root(), &root().join("src/lib.rs"));
    assert!(lib.text().contains("#![deny(unsafe_code)]"));
    assert!(lib.text().lines().count() < 120, "lib.rs is a table of contents");
}

#[test]
fn every_file_opens_with_what_it_is() {
    let wrongs = all_sources()
        .into_iter()
        .filter(|source| !source.text().starts_with("//! "))
        .map(|source| format!("{}: begins without a //! head", source.path))
        .collect();
    assert_none(wrongs);
}

#[test]
fn files_are_named_after_what_they_hold() {
    let wrongs = all_sources()
        .into_iter()
        .filter(|source| source.path.split(['/', '.']).any(|part| EMPTY_NAMES.contains(&part)))
        .map(|source| format!("{}: the name says nothing", source.path))
        .collect();
    assert_none(wrongs);
}

#[test]
fn files_and_functions_are_short_enough_to_read() {
    let mut wrongs = Vec::new();
    for source in all_sources() {
        let lines = source.text().lines().count();
        if lines > FILE_LINES_MAX {
            wrongs.push(format!("{}: {lines} lines, {FILE_LINES_MAX} at most", source.path));
        }
        for function in source.functions() {
            if function.lines > FUNCTION_LINES_MAX {
                wrongs.push(format!(
                    "{}:{}: fn {} has {} lines, {FUNCTION_LINES_MAX} at most",
                    source.path, function.line, function.name, function.lines
                ));
            }
        }
    }
    assert_none(wrongs);
}

#[test]
fn nothing_is_left_unfinished_or_commented_out() {
    let mut wrongs = Vec::new();
    for source in all_sources() {
        for (line, text) in source.text().lines().enumerate() {
            for mark in UNFINISHED {
                if text.contains(mark) {
                    wrongs.push(format!("{}:{}: {mark}", source.path, line + 1));
                }
            }
            if source::looks_like_code_in_a_comment(text) {
                wrongs.push(format!("{}:{}: code in a comment: {}", source.path, line + 1, text.trim()));
            }
        }
    }
    assert_none(wrongs);
}

#[test]
fn tests_wait_for_events_not_for_time() {
    let mut wrongs = Vec::new();
    for source in all_sources() {
        if !source.path.starts_with("tests/") || source.path == "tests/support/wait.rs" {
            continue;
        }
        for (line, text) in source.code_lines() {
            if text.contains("thread::sleep") || text.contains(".elapsed(") || text.contains("#[ignore") {
                wrongs.push(format!("{}:{line}: {}", source.path, text.trim()));
            }
        }
    }
    assert_none(wrongs);
}

/// Every text file a reader may open, except what other tools write.
fn all_texts() -> Vec<PathBuf> {
    let mut texts = Vec::new();
    let mut directories = vec![root()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            let is_generated = matches!(name.as_str(), "target" | ".git" | "corpus" | "artifacts" | "tidegate-data");
            if entry.file_type().unwrap().is_dir() && !is_generated {
                directories.push(entry.path());
            } else if entry.file_type().unwrap().is_file() && name != "Cargo.lock" && name != ".git" {
                texts.push(entry.path());
            }
        }
    }
    texts
}

#[test]
fn the_tree_names_no_private_place() {
    let mut wrongs = Vec::new();
    for path in all_texts() {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for (line, text) in text.lines().enumerate() {
            if PRIVATE.iter().any(|place| text.contains(place)) {
                wrongs.push(format!("{}:{}: {}", path.display(), line + 1, text.trim()));
            }
        }
    }
    assert_none(wrongs);
}

#[test]
fn links_of_the_documents_resolve() {
    let mut wrongs = Vec::new();
    for path in all_texts().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = std::fs::read_to_string(&path).unwrap();
        for link in source::markdown_links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            if !target.exists() {
                wrongs.push(format!("{}: {link} leads nowhere", path.display()));
            } else if !anchor.is_empty() && !has_heading(&target, anchor) {
                wrongs.push(format!("{}: {link}: no such heading", path.display()));
            }
        }
    }
    assert_none(wrongs);
}

fn has_heading(markdown: &Path, anchor: &str) -> bool {
    let text = std::fs::read_to_string(markdown).unwrap_or_default();
    text.lines().filter(|line| line.starts_with('#')).any(|line| source::anchor_of(line) == anchor)
}

#[test]
fn scripts_are_executable_and_stop_at_the_first_failure() {
    use std::os::unix::fs::PermissionsExt;
    let mut scripts: Vec<PathBuf> = vec![root().join(".ci/run")];
    scripts.extend(std::fs::read_dir(root().join("scripts")).unwrap().map(|entry| entry.unwrap().path()));
    for script in scripts.into_iter().filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(&script).unwrap();
        let interpreter = text.lines().next().unwrap_or_default();
        if !interpreter.starts_with("#!") {
            continue;
        }
        let mode = std::fs::metadata(&script).unwrap().permissions().mode();
        assert!(mode & 0o111 != 0, "{} is not executable", script.display());
        if interpreter.ends_with("sh") {
            assert!(text.contains("set -euo pipefail"), "{} goes on after a failure", script.display());
        }
    }
}
