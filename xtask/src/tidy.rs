//! What no compiler checks: layers, manifests, file heads, words, sizes, and tests that
//! documents name.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::layers::{DOORS, GRANTED, LAYERS, NOT_IN_PURE};

/// A file longer than this has more than one idea.
const MAX_LINES: usize = 800;

/// Words that are an unkept promise when they stand in the source. Written apart
/// here so that this file passes.
const BANNED: &[&str] = &[
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("HA", "CK"),
    concat!("#[ign", "ore"),
    concat!("#[should_", "panic"),
    concat!("todo", "!("),
];

/// Checks everything and prints each finding.
pub(crate) fn run() -> anyhow::Result<()> {
    let root = root();
    let mut findings = Vec::new();
    manifests(&root, &mut findings)?;
    let outside = excluded(&root)?;
    let mut functions = BTreeSet::new();
    for folder in ["crates", "tests", "xtask"] {
        for file in rust_files(&root.join(folder))? {
            if outside.iter().any(|folder| file.starts_with(root.join(folder))) {
                continue;
            }
            functions.extend(source(&root, &file, &mut findings)?);
        }
    }
    claims(&root, &functions, &mut findings)?;
    for finding in &findings {
        crate::run::complain(finding);
    }
    if findings.is_empty() { Ok(()) } else { bail!("tidy found {} things", findings.len()) }
}

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Folders that the workspace leaves out of the build.
fn excluded(root: &Path) -> anyhow::Result<Vec<String>> {
    let manifest: toml::Table = fs::read_to_string(root.join("Cargo.toml"))?.parse()?;
    let list = manifest.get("workspace").and_then(|workspace| workspace.get("exclude"));
    let names = list.and_then(toml::Value::as_array).into_iter().flatten();
    Ok(names.filter_map(toml::Value::as_str).map(str::to_owned).collect())
}

fn layer(name: &str) -> Option<u8> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(_, layer)| *layer)
}

fn manifests(root: &Path, findings: &mut Vec<String>) -> anyhow::Result<()> {
    let mut folders: Vec<_> = fs::read_dir(root.join("crates"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    folders.sort();
    let outside = excluded(root)?;
    for folder in folders {
        if outside.iter().any(|outside| folder == root.join(outside)) {
            continue;
        }
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let text = fs::read_to_string(folder.join("Cargo.toml"))
            .with_context(|| format!("crate {name} has no manifest"))?;
        let manifest: toml::Table = text.parse()?;
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        if lints.and_then(toml::Value::as_bool) != Some(true) {
            findings.push(format!("crates/{name}: `[lints] workspace = true` is missing"));
        }
        if name == "testkit" {
            continue;
        }
        let Some(own) = layer(&name) else {
            findings.push(format!("crates/{name}: has no layer in xtask/src/layers.rs"));
            continue;
        };
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
        for (dependency, value) in dependencies.into_iter().flatten() {
            let place = format!("crates/{name}: dependency {dependency}");
            if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                findings.push(format!("{place} does not take its version from the workspace"));
            }
            if let Some(ours) = dependency.strip_prefix("tidings-") {
                let granted = GRANTED.iter().any(|(from, to, _)| *from == name && *to == ours);
                match layer(ours) {
                    Some(other) if other < own || granted => {}
                    Some(_) => findings.push(format!("{place} does not go downwards")),
                    None => findings.push(format!("{place} is for tests only")),
                }
            }
            if own <= 1 && NOT_IN_PURE.contains(&dependency.as_str()) {
                findings.push(format!("{place} does not belong into a pure crate"));
            }
            if let Some((_, doors)) = DOORS.iter().find(|(library, _)| library == dependency)
                && !doors.contains(&name.as_str())
            {
                findings.push(format!("{place} has its door in {}", doors.join(", ")));
            }
        }
    }
    Ok(())
}

fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let mut entries: Vec<_> = fs::read_dir(&folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        entries.sort();
        for path in entries {
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "generated") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The document whose tables name, in their last column, the test of each claim.
const CLAIMS: &str = "docs/security.md";

/// Each test that is named must be there: a function, or a folder.
fn claims(
    root: &Path,
    functions: &BTreeSet<String>,
    findings: &mut Vec<String>,
) -> anyhow::Result<()> {
    let text = fs::read_to_string(root.join(CLAIMS))?;
    let mut claims = 0;
    for row in text.lines().filter(|line| line.starts_with('|')) {
        let Some(tests) = row.rsplit('|').nth(1) else { continue };
        for test in tests.split('`').skip(1).step_by(2) {
            let is_path = test.contains('/');
            let is_name = test.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if (is_path && root.join(test).exists()) || (is_name && functions.contains(test)) {
                claims += 1;
            } else {
                findings.push(format!("{CLAIMS}: there is no test {test}"));
            }
        }
    }
    if claims == 0 {
        findings.push(format!("{CLAIMS}: names no test"));
    }
    Ok(())
}

/// Checks a file and gives the names of its functions.
fn source(
    root: &Path,
    file: &Path,
    findings: &mut Vec<String>,
) -> anyhow::Result<BTreeSet<String>> {
    let text = fs::read_to_string(file)?;
    let place = file.strip_prefix(root).unwrap_or(file).display().to_string();
    if !text.starts_with("//!") {
        findings.push(format!("{place}: does not open with //!"));
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        findings.push(format!("{place}: {lines} lines, at most {MAX_LINES}"));
    }
    for (number, line) in text.lines().enumerate() {
        for word in BANNED {
            if line.contains(word) {
                findings.push(format!("{place}:{}: {word}", number + 1));
            }
        }
    }
    let names = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
    Ok(names.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tree_is_tidy() {
        super::run().unwrap();
    }
}
