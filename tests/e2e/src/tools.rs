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
    let mut wanted = String::new();
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("cannot read {}", folder.display()))?;
    files.sort();
    for file in &files {
        let text = fs::read_to_string(file);
        wanted += &text.with_context(|| format!("cannot read {}", file.display()))?;
    }
    bring("node", &wanted, |home| {
        fs::create_dir_all(home).with_context(|| format!("cannot make {}", home.display()))?;
        for file in &files {
            let name = file.file_name().unwrap_or_default();
            fs::copy(file, home.join(name))
                .with_context(|| format!("cannot copy {}", file.display()))?;
        }
        run(Command::new("npm").args(["ci", "--ignore-scripts", "--no-audit"]).current_dir(home))
    })
}

/// Makes a folder under the build's with `make` if it is not there as `wanted`.
fn bring(
    name: &str,
    wanted: &str,
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let home = target().join("tools").join(name);
    let folder = home.parent().unwrap_or(&home);
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
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
    make(&home)?;
    fs::write(&complete, wanted).with_context(|| format!("cannot write {}", complete.display()))?;
    Ok(home)
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
