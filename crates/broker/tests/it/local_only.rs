//! What only the local broker promises: locks, full disks, damage, planted
//! faults, and that key material leaves the disk.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tidings_broker::{
    AppendError, Appended, Broker, Damage, Fault, Faults, FreeSpace, GroupError, LocalBroker,
    LocalConfig, OpenError, Position, ReadError, Retention, TopicError, TopicSpec,
};
use tidings_types::{Clock, TopicPartition};
use tokio::task::JoinSet;

use crate::lab::{TestClock, append, at, batch, fill, open, read_all, small_config, spec, texts};

fn memory(faults: Option<Arc<dyn Faults>>, config: LocalConfig) -> LocalBroker {
    LocalBroker::memory(config, TestClock::start(), &mut Registry::default(), faults).unwrap()
}

#[tokio::test(start_paused = true)]
async fn everybody_learns_of_a_crash_of_the_memory_store() {
    let old = memory(None, small_config());
    let broker = Broker::Local(old.clone());
    broker.create_topic(spec("slots", 2)).await.unwrap();
    fill(&broker, &at("slots", 0), 2).await;
    let session = Duration::from_secs(6);
    let mut member = broker.join("g", &"slots".into(), session).await.unwrap();
    member.poll().await.unwrap();
    let mut reader = broker.reader();
    reader.assign(at("slots", 0), 2);
    let waiting = broker.append(vec![batch(&at("slots", 0), &["waits"])]);
    let crash = async { old.crash_and_reopen().unwrap() };
    let (polled, fetched, waited, new) =
        tokio::join!(member.poll(), reader.poll(100), waiting, crash);
    assert_eq!(polled, Err(GroupError::Unavailable));
    assert_eq!(fetched[0].records.as_ref().map(Vec::len), Err(&ReadError::Unavailable));
    assert_eq!(waited, [Err(AppendError::Unknown)], "it was not synced yet");
    let position = Position { of: at("slots", 0), next: 1, metadata: String::new() };
    assert_eq!(member.commit(vec![position]).await, Err(GroupError::Unavailable));
    let late = append(&broker, &at("slots", 0), &["late"]).await;
    assert_eq!(late, Err(AppendError::Unavailable));
    assert_eq!(broker.topics().await, Err(TopicError::Unavailable));
    let new = Broker::Local(new);
    assert_eq!(texts(&read_all(&new, &at("slots", 0), 0).await), ["0", "1"]);
    let mut member = new.join("g", &"slots".into(), session).await.unwrap();
    member.poll().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_visible_before_it_is_durable() {
    let config = LocalConfig { sync_delay: Duration::from_secs(1), ..small_config() };
    let local = memory(None, config);
    let broker = Broker::Local(local.clone());
    broker.create_topic(spec("t", 1)).await.unwrap();
    let mut reader = broker.reader();
    reader.assign(at("t", 0), 0);
    let mut tasks = JoinSet::new();
    let appender = broker.clone();
    tasks.spawn(async move { append(&appender, &at("t", 0), &["x"]).await });
    let early = tokio::time::timeout(Duration::from_millis(900), reader.poll(100)).await;
    assert!(early.is_err());
    assert_eq!(broker.ends(&at("t", 0)).await.unwrap().end, 0);
    assert!(broker.read(&at("t", 0), 0, 100).await.unwrap().is_empty());
    assert_eq!(reader.poll(100).await[0].records.as_ref().unwrap().len(), 1);
    tasks.join_next().await.unwrap().unwrap().unwrap();
}

/// Gives the faults of a list, one per batch.
#[derive(Debug, Default)]
struct Planted(Mutex<Vec<Option<Fault>>>);

impl Faults for Planted {
    fn on_append(&self, _to: &TopicPartition, records: usize) -> Option<Fault> {
        assert_eq!(records, 1);
        let mut faults = self.0.lock();
        if faults.is_empty() { None } else { faults.remove(0) }
    }
}

#[tokio::test(start_paused = true)]
async fn planted_faults_do_what_they_say() {
    let planted = Arc::new(Planted::default());
    let faults: Arc<dyn Faults> = Arc::<Planted>::clone(&planted);
    let broker = Broker::Local(memory(Some(faults), LocalConfig::default()));
    broker.create_topic(spec("t", 1)).await.unwrap();
    let slow = Duration::from_secs(5);
    *planted.0.lock() = vec![
        Some(Fault::Refuse),
        Some(Fault::LoseAnswer),
        Some(Fault::DropSilently),
        Some(Fault::Slow(slow)),
        None,
    ];
    let at = at("t", 0);
    assert_eq!(append(&broker, &at, &["refused"]).await, Err(AppendError::Unavailable));
    assert_eq!(append(&broker, &at, &["unanswered"]).await, Err(AppendError::Unknown));
    assert_eq!(append(&broker, &at, &["dropped"]).await, Err(AppendError::Unknown));
    let started = tokio::time::Instant::now();
    let (slow_answer, behind) =
        tokio::join!(append(&broker, &at, &["slow"]), append(&broker, &at, &["behind"]));
    assert!(started.elapsed() >= slow);
    assert!(slow_answer.unwrap().first() < behind.unwrap().first(), "it holds back what follows");
    assert_eq!(texts(&read_all(&broker, &at, 0).await), ["unanswered", "slow", "behind"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_open_of_a_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::start();
    let first = open(dir.path().to_owned(), &small_config(), &clock);
    let as_dyn: Arc<dyn Clock> = Arc::<TestClock>::clone(&clock);
    let second = LocalBroker::open(dir.path(), small_config(), as_dyn, &mut Registry::default());
    let error = second.err().unwrap();
    assert!(matches!(&error, OpenError::Locked(path) if path == dir.path()), "{error}");
    drop(first);
    open(dir.path().to_owned(), &small_config(), &clock);
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_is_let_go_in_a_moment_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::start();
    drop(open(dir.path().to_owned(), &small_config(), &clock));
    let lock = std::fs::File::open(dir.path().join("store/lock")).unwrap();
    lock.try_lock().unwrap();
    let holder = std::thread::spawn(move || {
        std::thread::park_timeout(Duration::from_millis(200));
        drop(lock);
    });
    open(dir.path().to_owned(), &small_config(), &clock);
    holder.join().unwrap();
}

#[derive(Debug)]
struct Probe(AtomicU64);

impl FreeSpace for Probe {
    fn free_bytes(&self, _path: &Path) -> std::io::Result<u64> {
        Ok(self.0.load(Ordering::SeqCst))
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_appends_but_not_reads_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let probe = Arc::new(Probe(AtomicU64::new(1 << 40)));
    let free_space: Arc<dyn FreeSpace> = Arc::<Probe>::clone(&probe);
    let config = LocalConfig { free_space: Some(free_space), ..small_config() };
    let local = open(dir.path().to_owned(), &config, &TestClock::start());
    let broker = Broker::Local(local.clone());
    broker.create_topic(spec("t", 1)).await.unwrap();
    fill(&broker, &at("t", 0), 100).await;
    let member = broker.join("g", &"t".into(), Duration::from_secs(60)).await.unwrap();
    let position = Position { of: at("t", 0), next: 1, metadata: String::new() };

    probe.0.store(config.disk_reserve_bytes - 1, Ordering::SeqCst);
    assert_eq!(append(&broker, &at("t", 0), &["no"]).await, Err(AppendError::NoSpace));
    assert_eq!(member.commit(vec![position.clone()]).await, Err(GroupError::NoSpace));
    assert_eq!(broker.create_topic(spec("u", 1)).await, Err(TopicError::NoSpace));
    // Who starts on a full disk finds its topics.
    let again = broker.create_topic(spec("t", 1)).await;
    assert_eq!(again, Err(TopicError::Exists("t".into())));
    assert_eq!(read_all(&broker, &at("t", 0), 0).await.len(), 100);
    broker.trim(&at("t", 0), 10).await.unwrap();
    probe.0.store(0, Ordering::SeqCst);
    assert_eq!(broker.trim(&at("t", 0), 20).await, Err(TopicError::NoSpace));
    assert_eq!(read_all(&broker, &at("t", 0), 10).await.len(), 90);

    probe.0.store(1 << 40, Ordering::SeqCst);
    assert_eq!(append(&broker, &at("t", 0), &["yes"]).await.unwrap().first(), Some(100));
    member.commit(vec![position]).await.unwrap();
    assert_eq!(local.failure(), None);
}

/// A small file system of its own. `None` where mounting is not permitted.
struct Mount(PathBuf);

impl Mount {
    fn new(dir: &Path) -> Option<Self> {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(dir);
        let done = mount.stderr(std::process::Stdio::null()).status();
        done.is_ok_and(|status| status.success()).then(|| Self(dir.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let done = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()), "umount");
    }
}

/// Appends 64 KiB at a time until the log is full; returns how many fitted.
async fn fill_up(broker: &Broker) -> u64 {
    let value = "f".repeat(64 << 10);
    for count in 0.. {
        match append(broker, &at("t", 0), &[&value]).await {
            Ok(_) => {}
            Err(AppendError::NoSpace) => return count,
            Err(other) => panic!("{other}"),
        }
    }
    unreachable!("a small disk fills up")
}

/// Runs on a real small file system, which takes root. The test before it plays
/// the same through a probe for everybody.
#[tokio::test(start_paused = true)]
async fn a_really_full_disk_never_breaks_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::new(dir.path()) else {
        assert_ne!(nix::unistd::geteuid().as_raw(), 0, "root may mount where this is tested");
        return;
    };
    let log = dir.path().join("log");
    let local = open(log.clone(), &LocalConfig::default(), &TestClock::start());
    let broker = Broker::Local(local.clone());
    broker.create_topic(spec("t", 1)).await.unwrap();
    let filler = dir.path().join("filler");
    std::fs::write(&filler, vec![1; 16 << 20]).unwrap();
    let before = fill_up(&broker).await;
    assert!(before > 32, "2 MiB fit: {before}");
    // A disk that others fill while a table is being written breaks any store.
    for _ in 0..10_000 {
        if !local.is_busy() {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    assert!(!local.is_busy(), "it never comes to an end");
    // Others fill the disk to the last byte: the store must not try to write.
    let rest = dir.path().join("rest");
    let mut file = std::fs::File::create(&rest).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    assert_eq!(append(&broker, &at("t", 0), &["no"]).await, Err(AppendError::NoSpace));
    assert_eq!(read_all(&broker, &at("t", 0), 0).await.len(), usize::try_from(before).unwrap());
    assert_eq!(local.failure(), None);
    drop(file);
    std::fs::remove_file(&rest).unwrap();
    std::fs::remove_file(&filler).unwrap();
    let more = fill_up(&broker).await;
    assert!(more > 0, "it recovers by itself");
    local.maintain().await;
    assert_eq!(local.failure(), None);
    let all = usize::try_from(before + more).unwrap();
    drop((broker, local));
    let local = open(log, &LocalConfig::default(), &TestClock::start());
    assert_eq!(read_all(&Broker::Local(local), &at("t", 0), 0).await.len(), all);
}

fn keys_topic() -> TopicSpec {
    TopicSpec {
        retention: Retention::For(Duration::from_secs(3600)),
        erase_buckets: Some(Duration::from_secs(600)),
        ..spec("tidings.keys", 1)
    }
}

/// The files under `dir` that contain `text`.
fn files_with(dir: &Path, text: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if std::fs::read(&path).unwrap().windows(text.len()).any(|part| part == text) {
            found.push(path);
        }
    }
    found
}

#[tokio::test(start_paused = true)]
async fn expired_key_material_is_in_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::start();
    let local = open(dir.path().to_owned(), &small_config(), &clock);
    let broker = Broker::Local(local.clone());
    broker.create_topic(keys_topic()).await.unwrap();
    broker.create_topic(spec("other", 1)).await.unwrap();
    let keys = at("tidings.keys", 0);
    append(&broker, &keys, &["old-secret-key-material"]).await.unwrap();
    fill(&broker, &at("other", 0), 10).await;
    tokio::time::advance(Duration::from_secs(1200)).await;
    append(&broker, &keys, &["young-secret-key-material"]).await.unwrap();
    assert_eq!(files_with(dir.path(), b"old-secret-key-material").len(), 1);
    tokio::time::advance(Duration::from_secs(2500)).await;
    while local.maintain().await.more {}
    assert_eq!(files_with(dir.path(), b"old-secret-key-material"), Vec::<PathBuf>::new());
    assert_eq!(files_with(dir.path(), b"young-secret-key-material").len(), 1);
    broker.delete_topic(&"tidings.keys".into()).await.unwrap();
    assert_eq!(files_with(dir.path(), b"young-secret-key-material"), Vec::<PathBuf>::new());
}

/// The only file of erased records.
fn bucket_file(dir: &Path) -> PathBuf {
    files_with(dir, b"secret").remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_torn_write_of_keys_is_cut_off_and_damage_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = || dir.path().to_owned();
    let clock = TestClock::start();
    let keys = at("tidings.keys", 0);
    let broker = Broker::Local(open(path(), &small_config(), &clock));
    broker.create_topic(keys_topic()).await.unwrap();
    append(&broker, &keys, &["secret one"]).await.unwrap();
    append(&broker, &keys, &["secret two"]).await.unwrap();
    drop(broker);

    let file = bucket_file(dir.path());
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, [&good[..], b"torn"].concat()).unwrap();
    let broker = Broker::Local(open(path(), &small_config(), &clock));
    assert_eq!(texts(&read_all(&broker, &keys, 0).await), ["secret one", "secret two"]);
    append(&broker, &keys, &["secret three"]).await.unwrap();
    drop(broker);

    let mut damaged = std::fs::read(&file).unwrap();
    let place = damaged.windows(6).position(|part| part == b"secret").unwrap();
    damaged[place] ^= 1;
    std::fs::write(&file, &damaged).unwrap();
    let broker = Broker::Local(open(path(), &small_config(), &clock));
    let expected =
        Err(ReadError::Damaged { partition: keys.clone(), offset: 0, damage: Damage::Broken });
    assert_eq!(broker.read(&keys, 0, 100).await.map(|_| ()), expected);
    assert_eq!(texts(&read_all(&broker, &keys, 1).await), ["secret two", "secret three"]);
    drop(broker);

    std::fs::write(&file, &damaged[..damaged.len() - 1]).unwrap();
    let cut = LocalBroker::open(dir.path(), small_config(), clock, &mut Registry::default());
    let error = cut.err().unwrap();
    assert!(matches!(&error, OpenError::DamagedFile(path) if *path == file), "{error}");
}

/// The files with `text` that are, or are not, journals of the store.
fn store_files(dir: &Path, text: &[u8], journals: bool) -> Vec<PathBuf> {
    let mut files = files_with(dir, text);
    files.retain(|path| path.extension().is_some_and(|kind| kind == "jnl") == journals);
    files
}

/// Flips a bit in every copy of `text` in these files.
fn damage(files: &[PathBuf], text: &[u8]) {
    assert!(!files.is_empty());
    for file in files {
        let mut bytes = std::fs::read(file).unwrap();
        for place in 0..bytes.len() - text.len() {
            if &bytes[place..place + text.len()] == text {
                bytes[place + text.len() / 2] ^= 1;
            }
        }
        std::fs::write(file, bytes).unwrap();
    }
}

const FLOOD: &str = "before the flood";

#[tokio::test(start_paused = true)]
async fn a_damaged_journal_is_refused_when_the_log_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::start();
    let broker = Broker::Local(open(dir.path().to_owned(), &small_config(), &clock));
    broker.create_topic(spec("t", 1)).await.unwrap();
    for number in 0..20 {
        append(&broker, &at("t", 0), &[&format!("{FLOOD} {number}")]).await.unwrap();
    }
    drop(broker);
    let text = format!("{FLOOD} 7");
    damage(&store_files(dir.path(), text.as_bytes(), true), text.as_bytes());
    let opened = LocalBroker::open(dir.path(), small_config(), clock, &mut Registry::default());
    let error = opened.err().unwrap();
    assert!(matches!(error, OpenError::DamagedFile(_)), "{error}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A process killed while it made its first log.
#[tokio::test(start_paused = true)]
async fn a_log_that_was_not_made_to_its_end_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::start();
    let broker = Broker::Local(open(dir.path().to_owned(), &small_config(), &clock));
    broker.create_topic(spec("t", 1)).await.unwrap();
    drop(broker);
    let store = dir.path().join("store");
    std::fs::remove_file(store.join("version")).unwrap();
    std::fs::remove_dir_all(store.join("keyspaces")).unwrap();
    let journal = store.join("0.jnl");
    let written = std::fs::read(&journal).unwrap();
    let again = || {
        let clock: Arc<dyn Clock> = Arc::<TestClock>::clone(&clock);
        LocalBroker::open(dir.path(), small_config(), clock, &mut Registry::default())
    };
    assert!(again().is_err(), "a journal with something in it is not thrown away");
    std::fs::write(&journal, vec![0; written.len()]).unwrap();
    let broker = Broker::Local(again().unwrap());
    broker.create_topic(spec("t", 1)).await.unwrap();
    append(&broker, &at("t", 0), &["x"]).await.unwrap();
}

/// A power cut in the middle of a commit: any page of it may be missing.
#[tokio::test(start_paused = true)]
async fn a_torn_last_commit_is_cut_off_and_what_was_before_is_there() {
    const PAGE: usize = 4096;
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::start();
    let broker = Broker::Local(open(dir.path().to_owned(), &small_config(), &clock));
    broker.create_topic(spec("t", 1)).await.unwrap();
    append(&broker, &at("t", 0), &["first"]).await.unwrap();
    append(&broker, &at("t", 0), &["acknowledged"]).await.unwrap();
    let journal = store_files(dir.path(), b"acknowledged", true).pop().unwrap();
    let written = |file: &Path| {
        let bytes = std::fs::read(file).unwrap();
        bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
    };
    let from = written(&journal);
    append(&broker, &at("t", 0), &[&"torn ".repeat(4000)]).await.unwrap();
    drop(broker);
    let to = written(&journal);
    assert!(to - from > 4 * PAGE, "the last commit has pages");
    for page in from / PAGE..=to / PAGE {
        let cut = tempfile::tempdir().unwrap();
        copy(dir.path(), cut.path());
        let file = cut.path().join(journal.strip_prefix(dir.path()).unwrap());
        let mut bytes = std::fs::read(&file).unwrap();
        let end = bytes.len().min((page + 1) * PAGE);
        bytes[from.max(page * PAGE)..end].fill(0);
        std::fs::write(&file, bytes).unwrap();
        let path = || cut.path().to_owned();
        let broker = Broker::Local(open(path(), &small_config(), &clock));
        let records = read_all(&broker, &at("t", 0), 0).await;
        assert_eq!(texts(&records), ["first", "acknowledged"], "without page {page}");
        append(&broker, &at("t", 0), &["afterwards"]).await.unwrap();
        drop(broker);
        let broker = Broker::Local(open(path(), &small_config(), &clock));
        let records = read_all(&broker, &at("t", 0), 0).await;
        assert_eq!(texts(&records), ["first", "acknowledged", "afterwards"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_damaged_on_disk_is_never_given_as_data() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::start();
    let config = LocalConfig { memtable_bytes: 64 << 10, ..small_config() };
    let broker = Broker::Local(open(dir.path().to_owned(), &config, &clock));
    broker.create_topic(spec("t", 1)).await.unwrap();
    let value = |number: u64| format!("{FLOOD} {number} {}", "x".repeat(2000));
    let mut count = 0;
    // Until the store has written the first table of its own accord.
    let wanted = format!("{FLOOD} 7 ");
    while store_files(dir.path(), wanted.as_bytes(), false).is_empty() {
        append(&broker, &at("t", 0), &[&value(count)]).await.unwrap();
        count += 1;
        assert!(count < 10_000, "the store never writes a table");
    }
    drop(broker);
    damage(&store_files(dir.path(), wanted.as_bytes(), false), wanted.as_bytes());
    let broker = Broker::Local(open(dir.path().to_owned(), &config, &clock));
    let (mut good, mut damaged) = (0, 0);
    for offset in 0..count {
        match broker.read(&at("t", 0), offset, 1).await {
            Ok(records) => {
                assert_eq!(texts(&records), [value(offset)]);
                good += 1;
            }
            Err(error) => {
                let expected =
                    ReadError::Damaged { partition: at("t", 0), offset, damage: Damage::Broken };
                assert_eq!(error, expected);
                damaged += 1;
            }
        }
    }
    assert!(damaged > 0 && damaged < 10 && good > 0, "{damaged} damaged, {good} good");
}

#[tokio::test]
async fn a_broker_dropped_in_the_middle_of_appends_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::start();
    let mut expected = 0;
    for round in 0..6_u64 {
        let local = open(dir.path().to_owned(), &small_config(), &clock);
        let broker = Broker::Local(local);
        if round == 0 {
            broker.create_topic(spec("t", 4)).await.unwrap();
        }
        let acknowledged = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for task in 0..16_u32 {
            let (broker, acknowledged) = (broker.clone(), Arc::clone(&acknowledged));
            tasks.spawn(async move {
                loop {
                    let done: Appended = append(&broker, &at("t", task % 4), &["value"]).await;
                    done.unwrap();
                    acknowledged.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        while acknowledged.load(Ordering::SeqCst) < 200 + 37 * round {
            tokio::task::yield_now().await;
        }
        tasks.shutdown().await;
        expected += acknowledged.load(Ordering::SeqCst);
        drop(broker);
    }
    let broker = Broker::Local(open(dir.path().to_owned(), &small_config(), &clock));
    let mut kept = 0;
    for partition in 0..4 {
        kept += broker.ends(&at("t", partition)).await.unwrap().end;
        read_all(&broker, &at("t", partition), 0).await;
    }
    assert!(kept >= expected, "{kept} of {expected}");
}

#[tokio::test(start_paused = true)]
async fn readers_at_the_tail_share_the_bytes_that_were_appended() {
    let broker = Broker::Local(memory(None, LocalConfig::default()));
    broker.create_topic(spec("t", 1)).await.unwrap();
    let value = Bytes::from(vec![7; 1000]);
    let mut shared = batch(&at("t", 0), &["x"]);
    shared.records[0].value = Some(value.clone());
    broker.append(vec![shared]).await.remove(0).unwrap();
    let read = broker.read(&at("t", 0), 0, 100).await.unwrap();
    assert_eq!(read[0].value.as_ref().unwrap().as_ptr(), value.as_ptr());
}
