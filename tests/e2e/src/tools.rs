//! Programs of other languages that tests run, at pinned versions, brought once
//! into the build's folder by their own package managers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

/// A copy of a folder's scripts beside the packages that its `package-lock.json`
/// names.
///
/// # Errors
/// When Node.js or npm is not there or a package cannot be brought.
pub fn node(folder: &Path) -> anyhow::Result<PathBuf> {
    bring("node", folder, |home| {
        run(Command::new("npm").args(["ci", "--ignore-scripts", "--no-audit"]).current_dir(home))
    })
}

/// A copy of a folder's files beside a virtual environment `venv` with the packages
/// that its `requirements.txt` names.
///
/// # Errors
/// When Python or its venv is not there or a package cannot be brought.
pub fn python(folder: &Path) -> anyhow::Result<PathBuf> {
    // Each has its own, so that they do not replace each other.
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or("python");
    bring(name, folder, |home| {
        let venv = home.join("venv");
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        let mut pip = Command::new(venv.join("bin/python3"));
        pip.args(["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]);
        run(pip.arg("-r").arg(home.join("requirements.txt")))
    })
}

/// Copies the files of `folder` into one under the build's and lets `make` add to them,
/// if they are not there as they are now.
fn bring(
    name: &str,
    folder: &Path,
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let (files, wanted) = files(folder)?;
    let home = target().join("tools").join(name);
    let tools = home.parent().unwrap_or(&home);
    fs::create_dir_all(tools).with_context(|| format!("cannot make {}", tools.display()))?;
    let lock = fs::File::create(home.with_extension("lock")).context("cannot make a lock file")?;
    lock.lock().context("cannot lock the tools")?;
    let complete = home.join("complete");
    if fs::read_to_string(&complete).is_ok_and(|had| had == wanted) {
        return Ok(home);
    }
    if home.exists() {
        fs::remove_dir_all(&home)
            .with_context(|| format!("cannot remove the old {}", home.display()))?;
    }
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    for file in &files {
        let name = file.file_name().unwrap_or_default();
        fs::copy(file, home.join(name))
            .with_context(|| format!("cannot copy {}", file.display()))?;
    }
    make(&home)?;
    fs::write(&complete, wanted).with_context(|| format!("cannot write {}", complete.display()))?;
    Ok(home)
}

/// The files of a folder, and the text of all of them.
fn files(folder: &Path) -> anyhow::Result<(Vec<PathBuf>, String)> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("cannot read {}", folder.display()))?;
    files.sort();
    let mut text = String::new();
    for file in &files {
        let read = fs::read_to_string(file);
        text += &read.with_context(|| format!("cannot read {}", file.display()))?;
    }
    Ok((files, text))
}

/// The build's folder.
fn target() -> PathBuf {
    let ours = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(ours, PathBuf::from)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = command.get_program().display().to_string();
    let output = command
        .output()
        .with_context(|| format!("cannot start {shown}; `cargo xtask test` brings it"))?;
    ensure!(
        output.status.success(),
        "{shown} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
