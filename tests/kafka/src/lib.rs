//! A real Kafka node for tests: its jars come with Maven, it starts in seconds and
//! ends with the process that started it.
//!
//! Everything that takes long is made once and kept beside the build:
//! `target/kafka-VERSION` holds the jars and an archive of loaded classes. Java 17
//! or newer and Maven must be there; `cargo xtask test` installs them.

mod port;

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

pub use port::free_port;

/// The version of Kafka that the tests run on.
pub const VERSION: &str = "4.4.0";

const POM: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tidings</groupId><artifactId>kafka-node</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>4.4.0</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.5</version></dependency>
  </dependencies>
</project>
"#;

const LOG4J: &str = "\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
";

/// Any 16 bytes, as Kafka writes them.
const CLUSTER: &str = "MkU3OEVBNTcwNTJENDM2Qg";
/// How long a start may take, on a machine that is busy.
const START: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(50);
/// Must be the same when the archive of classes is made and when it is used.
const JVM: [&str; 4] = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xms256m", "-Xmx512m"];

/// What went wrong, with what a person can do.
#[derive(Debug)]
pub struct KafkaError(String);

impl std::fmt::Display for KafkaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KafkaError {}

fn failed(what: &str, error: impl std::fmt::Display) -> KafkaError {
    KafkaError(format!("{what}: {error}"))
}

/// The jars, ready to run.
#[derive(Clone, Debug)]
pub struct KafkaJars {
    home: PathBuf,
    class_path: String,
}

impl KafkaJars {
    /// Brings what is missing; other processes that want it too wait.
    ///
    /// # Errors
    /// When Java or Maven is missing or fails.
    pub fn bring() -> Result<Self, KafkaError> {
        let home = home();
        let io = |error: io::Error| failed(&format!("cannot write {}", home.display()), error);
        fs::create_dir_all(&home).map_err(io)?;
        let lock = fs::File::create(home.join("lock")).map_err(io)?;
        lock.lock().map_err(io)?;
        let libs = home.join("libs");
        if !home.join("libs.complete").exists() {
            fs::write(home.join("pom.xml"), POM).map_err(io)?;
            run(
                Command::new("mvn")
                    .current_dir(&home)
                    .args(["-B", "-q", "dependency:copy-dependencies", "-DincludeScope=runtime"])
                    .arg(format!("-DoutputDirectory={}", libs.display())),
                "Maven (`apt-get install maven openjdk-17-jdk-headless`, or `cargo xtask test`)",
            )?;
            fs::write(home.join("log4j2.properties"), LOG4J).map_err(io)?;
            fs::write(home.join("libs.complete"), VERSION).map_err(io)?;
        }
        let mut names: Vec<PathBuf> = fs::read_dir(&libs)
            .map_err(io)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "jar"))
            .collect();
        names.sort();
        let names: Vec<String> = names.iter().map(|path| path.display().to_string()).collect();
        let jars = Self { home, class_path: names.join(":") };
        if !jars.archive().exists() {
            jars.make_archive()?;
        }
        Ok(jars)
    }

    fn archive(&self) -> PathBuf {
        self.home.join("classes.jsa")
    }

    /// Runs a node once to keep what it loads: later starts take a third of the time.
    fn make_archive(&self) -> Result<(), KafkaError> {
        let made = self.home.join("classes.jsa.new");
        let flag = format!("-XX:ArchiveClassesAtExit={}", made.display());
        let directory = self.home.join("first-run");
        fs::remove_dir_all(&directory).or_else(not_there).map_err(|e| failed("cleaning", e))?;
        let mut node = KafkaNode::start_with(self, &directory, &[], &flag)?;
        node.stop()?;
        let kept = fs::rename(&made, self.archive());
        kept.map_err(|error| failed("Kafka's archive of classes was not made", error))
    }

    fn java(&self, archive: Option<&str>) -> Vec<String> {
        let share = format!("-XX:SharedArchiveFile={}", self.archive().display());
        let mut arguments: Vec<String> = JVM.map(str::to_owned).to_vec();
        arguments.push(archive.map_or(share, str::to_owned));
        let log4j = self.home.join("log4j2.properties");
        arguments.push(format!("-Dlog4j2.configurationFile={}", log4j.display()));
        arguments.extend(["-cp".to_owned(), self.class_path.clone()]);
        arguments
    }
}

/// Beside the build, so that `cargo clean` removes it.
fn home() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    target.join(format!("kafka-{VERSION}"))
}

/// A node that is broker and controller in one.
#[derive(Debug)]
pub struct KafkaNode {
    jars: KafkaJars,
    directory: PathBuf,
    ports: (u16, u16),
    archive: Option<String>,
    running: Option<Running>,
}

/// A shell waits for the end of its input, which comes with the end of this
/// process whatever ends it, and then ends Java.
#[derive(Debug)]
struct Running {
    shell: Child,
    input: Option<ChildStdin>,
    pid: u32,
}

impl KafkaNode {
    /// Starts a node on free ports of loopback; its data is in `directory`.
    ///
    /// # Errors
    /// When Kafka cannot be brought or does not start.
    pub fn start(directory: &Path, settings: &[(&str, &str)]) -> Result<Self, KafkaError> {
        Self::launch(&KafkaJars::bring()?, directory, settings, None)
    }

    fn start_with(
        jars: &KafkaJars,
        directory: &Path,
        settings: &[(&str, &str)],
        archive: &str,
    ) -> Result<Self, KafkaError> {
        Self::launch(jars, directory, settings, Some(archive.to_owned()))
    }

    fn launch(
        jars: &KafkaJars,
        directory: &Path,
        settings: &[(&str, &str)],
        archive: Option<String>,
    ) -> Result<Self, KafkaError> {
        let io = |error: io::Error| failed(&format!("cannot use {}", directory.display()), error);
        fs::create_dir_all(directory).map_err(io)?;
        let ports = (free_port().map_err(io)?, free_port().map_err(io)?);
        let properties = directory.join("server.properties");
        fs::write(&properties, server_properties(ports, directory, settings)).map_err(io)?;
        let mut node = Self {
            jars: jars.clone(),
            directory: directory.to_owned(),
            ports,
            archive,
            running: None,
        };
        let format_archive = node.archive.as_ref().map(|_| "-Xshare:auto");
        run(
            Command::new("java")
                .args(jars.java(format_archive))
                .args(["kafka.tools.StorageTool", "format", "--ignore-formatted", "--cluster-id"])
                .args([CLUSTER, "-c"])
                .arg(&properties)
                .stdout(Stdio::null()),
            "Java (`apt-get install openjdk-17-jdk-headless`, or `cargo xtask test`)",
        )?;
        node.restart()?;
        Ok(node)
    }

    /// `HOST:PORT`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.ports.0)
    }

    /// Runs one command of `java/Client.java`, which says which there are.
    ///
    /// # Errors
    /// When the command fails; the error has what it said.
    pub fn client(&self, arguments: &[&str]) -> Result<(), KafkaError> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("java/Client.java");
        let log4j = self.jars.home.join("log4j2.properties");
        let ended = Command::new("java")
            .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
            .arg(format!("-Dlog4j2.configurationFile={}", log4j.display()))
            .args(["-cp", &self.jars.class_path])
            .arg(program)
            .arg(self.bootstrap())
            .args(arguments)
            .output()
            .map_err(|error| failed("cannot run Java's client", error))?;
        if ended.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        Err(KafkaError(format!("{} failed: {said}", arguments.join(" "))))
    }

    /// Starts a node that has been stopped or killed again.
    ///
    /// # Errors
    /// When it does not come up; the error names its log.
    pub fn restart(&mut self) -> Result<(), KafkaError> {
        let log = self.directory.join("node.log");
        let io = |error: io::Error| failed("Kafka cannot be started", error);
        let output = fs::OpenOptions::new().create(true).append(true).open(&log).map_err(io)?;
        let mut shell = Command::new("sh")
            .arg("-c")
            .arg("\"$@\" </dev/null & echo $!; cat >/dev/null; kill -TERM $! 2>/dev/null; wait $!")
            .args(["sh", "java"])
            .args(self.jars.java(self.archive.as_deref()))
            .arg("kafka.Kafka")
            .arg(self.directory.join("server.properties"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(output.try_clone().map_err(io)?)
            .spawn()
            .map_err(io)?;
        let input = shell.stdin.take();
        let mut first = Vec::new();
        if let Some(output) = &mut shell.stdout {
            let mut byte = [0];
            while output.read(&mut byte).map_err(io)? == 1 && byte != *b"\n" {
                first.extend(byte);
            }
        }
        drain(shell.stdout.take(), output);
        let pid = String::from_utf8_lossy(&first).trim().parse().unwrap_or(0);
        self.running = Some(Running { shell, input, pid });
        self.wait_until_ready(&log)
    }

    fn wait_until_ready(&mut self, log: &Path) -> Result<(), KafkaError> {
        let looks = START.as_millis() / LOOK.as_millis();
        for _ in 0..looks {
            if has_broker(self.ports.0) {
                return Ok(());
            }
            let ended = self.running.as_mut().and_then(|running| running.shell.try_wait().ok()?);
            if ended.is_some() {
                break;
            }
            std::thread::park_timeout(LOOK);
        }
        let said = fs::read_to_string(log).unwrap_or_else(|error| error.to_string());
        let tail: Vec<&str> = said.lines().rev().take(15).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        Err(KafkaError(format!(
            "Kafka did not start; {} ends with\n{}",
            log.display(),
            tail.join("\n")
        )))
    }

    /// The process, for signals of a test's own.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.pid)
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// When it could not be killed.
    pub fn kill(&mut self) -> Result<(), KafkaError> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        run(Command::new("kill").args(["-9", &running.pid.to_string()]), "kill")?;
        drop(running.input.take());
        running.shell.wait().map(drop).map_err(|error| failed("a killed Kafka does not end", error))
    }

    /// Ends it properly.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<(), KafkaError> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        drop(running.input.take());
        running.shell.wait().map(drop).map_err(|error| failed("Kafka does not end", error))
    }
}

impl Drop for KafkaNode {
    fn drop(&mut self) {
        // Nothing depends on a clean end, and a test need not wait for one.
        drop(self.kill());
    }
}

/// Copies what a node prints into its log, on a thread that ends with it.
fn drain(output: Option<std::process::ChildStdout>, mut log: fs::File) {
    let Some(mut output) = output else { return };
    drop(std::thread::spawn(move || io::copy(&mut output, &mut log)));
}

fn run(command: &mut Command, what: &str) -> Result<(), KafkaError> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| failed(&format!("cannot run {what}"), error))?;
    if status.success() { Ok(()) } else { Err(KafkaError(format!("{what} failed: {status}"))) }
}

fn not_there(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Asks for the brokers (Metadata, version 4); a mere connect comes too early.
fn has_broker(port: u16) -> bool {
    let ask = || -> io::Result<bool> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        // Length; key 3, version 4, correlation 1, no client name; no topics; false.
        stream.write_all(&[0, 0, 0, 15, 0, 3, 0, 4, 0, 0, 0, 1, 0xFF, 0xFF, 0, 0, 0, 0, 0])?;
        // Length, correlation, throttle, number of brokers.
        let mut answer = [0; 16];
        stream.read_exact(&mut answer)?;
        Ok(answer[12..16] != [0, 0, 0, 0])
    };
    ask().unwrap_or(false)
}

fn server_properties(ports: (u16, u16), directory: &Path, settings: &[(&str, &str)]) -> String {
    let (broker, controller) = ports;
    let mut lines = vec![
        "process.roles=broker,controller".to_owned(),
        "node.id=1".to_owned(),
        format!("controller.quorum.voters=1@127.0.0.1:{controller}"),
        format!("listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}"),
        format!("advertised.listeners=PLAINTEXT://127.0.0.1:{broker}"),
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned(),
        "controller.listener.names=CONTROLLER".to_owned(),
        "inter.broker.listener.name=PLAINTEXT".to_owned(),
        format!("log.dirs={}", directory.join("data").display()),
    ];
    let fixed = [
        "auto.create.topics.enable=false",
        "offsets.topic.replication.factor=1",
        "offsets.topic.num.partitions=4",
        "transaction.state.log.replication.factor=1",
        "transaction.state.log.min.isr=1",
        "transaction.state.log.num.partitions=4",
        "share.coordinator.state.topic.replication.factor=1",
        "share.coordinator.state.topic.min.isr=1",
        "group.initial.rebalance.delay.ms=0",
        "group.min.session.timeout.ms=1000",
        "offsets.retention.minutes=129600",
        "log.index.size.max.bytes=1048576",
        "num.network.threads=2",
        "num.io.threads=2",
        // After a kill the next start waits for the old one's session.
        "broker.session.timeout.ms=1500",
        "broker.heartbeat.interval.ms=300",
    ];
    lines.extend(fixed.map(str::to_owned));
    lines.extend(settings.iter().map(|(key, value)| format!("{key}={value}")));
    lines.join("\n")
}
