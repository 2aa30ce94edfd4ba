//! Programs of `tests/genuine` that hold genuine packages: lines of JSON in, lines of JSON out.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::NamedTempFile;

const SOURCE_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/genuine");

/// Runs `node <program> <args> <file with the lines>` of a peer; one line comes back for each.
pub(crate) fn ask(peer: &str, program: &str, args: &[&str], lines: &[Value]) -> Vec<Value> {
    let home = install(peer, program);
    let file = NamedTempFile::new().unwrap();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(&file, text).unwrap();
    let node = Command::new("node")
        .current_dir(&home)
        .arg("--no-deprecation")
        .arg(program)
        .args(args)
        .arg(file.path())
        .output()
        .expect("node is installed");
    let complaint = String::from_utf8_lossy(&node.stderr);
    assert!(node.status.success(), "{complaint}");
    let text = String::from_utf8(node.stdout).unwrap();
    let answers: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    assert_eq!(answers.len(), lines.len(), "{complaint}");
    answers
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns a directory with the packages and the program that calls them.
fn install(peer: &str, program: &str) -> PathBuf {
    let source = Path::new(SOURCE_DIR).join(peer);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let home = target.join("peers").join(peer);
    fs::create_dir_all(&home).unwrap();
    let lock = File::create(home.join("lock")).unwrap();
    lock.lock().unwrap();
    fs::copy(source.join(program), home.join(program)).unwrap();
    let wanted = fs::read_to_string(source.join("package.json")).unwrap();
    let stamp = home.join("installed.json");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return home;
    }
    fs::write(home.join("package.json"), &wanted).unwrap();
    let npm = Command::new("npm")
        .current_dir(&home)
        .args([
            "install",
            "--no-audit",
            "--no-fund",
            "--no-package-lock",
            "--ignore-scripts",
        ])
        .output()
        .expect("npm is installed");
    assert!(
        npm.status.success(),
        "{}",
        String::from_utf8_lossy(&npm.stderr)
    );
    fs::write(stamp, wanted).unwrap();
    home
}
