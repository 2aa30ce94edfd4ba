//! `docs/reliability.md`, whose generated sections are written by the runs that they are about.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Puts `text` in the place of a section, if the run is to write it: `TANGELO_WRITE_REFERENCE=1`. Prints it in any case.
pub(super) fn write(section: &str, text: &str) {
    println!("{text}");
    if std::env::var_os("TANGELO_WRITE_REFERENCE").is_none() {
        return;
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md");
    let page = fs::read_to_string(&path).expect("the page is there");
    let (begin, end) = (
        format!("<!-- {section} -->\n"),
        format!("<!-- end of {section} -->\n"),
    );
    let (before, rest) = page.split_once(&begin).expect("the section begins");
    let (_, after) = rest.split_once(&end).expect("the section ends");
    let page = format!("{before}{begin}\n{text}\n{end}{after}");
    fs::write(&path, page).expect("the page can be written");
}

/// The day and the machine of a run.
pub(super) fn circumstances() -> String {
    let date = output("date", &["+%Y-%m-%d"]);
    let kernel = output("uname", &["-r"]);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let profile = match cfg!(debug_assertions) {
        true => "a debug build",
        false => "a release build",
    };
    format!("{date}, {cores} cores for gateway and load together, Linux {kernel}, {profile}")
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.expect("coreutils are here").stdout;
    String::from_utf8_lossy(&output).trim().to_owned()
}
