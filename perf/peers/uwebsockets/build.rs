//! Compiles µWebSockets and the server over it: epoll, no TLS, no compression, all optimizations.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=src");
    let sources = sources();
    let sockets = sources.join("uSockets/src");
    let mut build = cc::Build::new();
    build
        .include(&sockets)
        .include(sources.join("src"))
        .define("LIBUS_NO_SSL", None)
        .define("LIBUS_USE_EPOLL", None)
        .define("UWS_NO_ZLIB", None)
        .opt_level(3)
        .flag("-march=native")
        .warnings(false);
    let mut server = build.clone();
    let server = server.cpp(true).std("c++20").file("src/server.cpp");
    server.compile("server");
    for folder in ["", "eventing", "crypto"] {
        build.files(c_files(&sockets.join(folder)));
    }
    build.std("c11").compile("usockets");
}

/// Returns the folder of µWebSockets in the package that Cargo has fetched.
fn sources() -> PathBuf {
    let mut command = Command::new(std::env::var_os("CARGO").expect("Cargo runs this"));
    command.args(["metadata", "--format-version", "1", "--locked"]);
    let output = command.output().expect("cargo metadata runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {error}");
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let mut packages = metadata["packages"].as_array().into_iter().flatten();
    let package = packages.find(|package| package["name"] == "libuwebsockets-sys");
    let manifest = package.and_then(|package| package["manifest_path"].as_str());
    let manifest = Path::new(manifest.expect("the package is in Cargo.toml"));
    manifest.with_file_name("uWebSockets")
}

fn c_files(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().expect("µSockets has this folder");
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .collect()
}
