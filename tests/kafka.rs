//! Runs Apache Kafka's own programs, with jars from Maven, if there is a JVM.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The release that Tidelog is compared with.
pub const VERSION: &str = "4.3.1";

/// The directory with Kafka's jars: `TIDELOG_KAFKA_JARS`, or else `target/kafka-jars`, which Maven fills at the first
/// use. The error says which program is missing.
pub fn jars() -> Result<PathBuf, String> {
    static JARS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    JARS.get_or_init(|| {
        if !runs("java", "-version") {
            return Err("no JVM is installed (`java`)".to_owned());
        }
        if let Ok(dir) = std::env::var("TIDELOG_KAFKA_JARS") {
            return Ok(PathBuf::from(dir));
        }
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kafka-jars").join(VERSION);
        if is_whole(&dir) {
            return Ok(dir);
        }
        if !runs("mvn", "-version") {
            return Err("no Maven is installed (`mvn`) to download Kafka's jars".to_owned());
        }
        download(&dir)
    })
    .clone()
}

/// A Java program with Kafka's jars on its class path and a small heap.
pub fn tool(jars: &Path, class: &str) -> Command {
    java(jars, class, "info")
}

/// Like [`tool`], with Kafka's logging switched off, so that standard error holds only what the tool itself prints.
pub fn quiet_tool(jars: &Path, class: &str) -> Command {
    java(jars, class, "off")
}

fn java(jars: &Path, class: &str, log_level: &str) -> Command {
    let mut command = Command::new("java");
    command
        .args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .arg(format!("-Dorg.slf4j.simpleLogger.defaultLogLevel={log_level}"))
        .arg("-cp")
        .arg(format!("{}/*", jars.display()))
        .arg(class);
    command
}

fn runs(program: &str, argument: &str) -> bool {
    Command::new(program).arg(argument).output().is_ok_and(|output| output.status.success())
}

/// Whether a directory has all jars of `pom.xml`; `kafka-shell` was added last.
fn is_whole(dir: &Path) -> bool {
    dir.join(format!("kafka-shell-{VERSION}.jar")).exists()
}

/// Downloads into a directory beside `dir` and renames it, so that no other test program sees a half-filled `dir`.
fn download(dir: &Path) -> Result<PathBuf, String> {
    let parent = dir.parent().expect("a parent");
    fs::create_dir_all(parent).map_err(|error| error.to_string())?;
    let work = tempfile::Builder::new().prefix("download").tempdir_in(parent).map_err(|error| error.to_string())?;
    let pom = work.path().join("pom.xml");
    fs::write(&pom, include_str!("clients/java/pom.xml")).map_err(|error| error.to_string())?;
    let output = Command::new("mvn")
        .args(["--quiet", "--batch-mode", "--file"])
        .arg(&pom)
        .arg("dependency:copy-dependencies")
        .arg("-DincludeScope=runtime")
        .arg(format!("-DoutputDirectory={}", work.path().join("libs").display()))
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("Maven cannot download Kafka's jars: {}", String::from_utf8_lossy(&output.stdout).trim()));
    }
    if !is_whole(dir) {
        let _ = fs::remove_dir_all(dir);
    }
    if let Err(error) = fs::rename(work.path().join("libs"), dir)
        && !is_whole(dir)
    {
        return Err(error.to_string());
    }
    Ok(dir.to_owned())
}
