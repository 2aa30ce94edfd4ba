//! The compiler's answer to a handler that is wrong.
//!
//! `tests/compile/*.stderr` are the texts of the compiler that `tests/compile/rustc.txt` names. Another
//! compiler has to refuse the same programs, in words of its own, which are not compared.
//! `TRYBUILD=overwrite cargo test --test compile` writes the texts and the name anew.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::{env, fs, io};

const PROGRAMS: &str = "tests/compile";
const COPIES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/compile");
const MADE_WITH: &str = "tests/compile/rustc.txt";

#[test]
fn a_wrong_handler_is_explained() {
    let rustc = rustc();
    if env::var("TRYBUILD").is_ok_and(|mode| mode == "overwrite") {
        fs::write(MADE_WITH, format!("{rustc}\n")).expect("the name can be written");
    }
    let made_with =
        fs::read_to_string(MADE_WITH).expect("the file names the compiler that made the texts");
    if made_with.trim() == rustc {
        refuses_all(PROGRAMS);
        return;
    }
    // Written past the harness, which hides the output of a test that passes.
    let line = format!(
        "texts not compared: made with {}, this is {rustc}",
        made_with.trim()
    );
    writeln!(io::stderr(), "{PROGRAMS}: {line}").expect("stderr is open");
    copy_programs();
    let refused = Command::new(env::current_exe().expect("a running program has a path"))
        .args(["--ignored", "--exact", "copies_are_refused"])
        .env("TRYBUILD", "overwrite")
        .status();
    assert!(refused.expect("cargo starts").success());
}

/// With texts that are written, not compared, which takes a process with that mode of trybuild.
#[test]
#[ignore = "a_wrong_handler_is_explained runs it, with another compiler"]
fn copies_are_refused() {
    refuses_all(COPIES);
}

fn refuses_all(folder: &str) {
    trybuild::TestCases::new().compile_fail(format!("{folder}/*.rs"));
}

fn copy_programs() {
    fs::create_dir_all(COPIES).expect("a folder for the copies");
    for entry in fs::read_dir(PROGRAMS).expect("the programs are there") {
        let path = entry.expect("a folder can be read").path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.file_name().expect("a file has a name");
            fs::copy(&path, Path::new(COPIES).join(name)).expect("cannot copy a program");
        }
    }
}

/// The compiler's name, as `rustc -V` prints it.
fn rustc() -> String {
    let output = Command::new("rustc")
        .arg("-V")
        .output()
        .expect("rustc is there");
    let name = String::from_utf8(output.stdout).expect("a name in UTF-8");
    name.trim().to_owned()
}
