# Recipes for people. What a commit has to pass is `just check`, the same as in CI.

# Lists the recipes.
default:
    @just --list

# Formats everything.
fmt:
    cargo fmt --all

# Everything a commit has to pass.
check:
    .ci/run

# All tests; some start a genuine Pomelo cluster and need Node.
test *ARGS:
    cargo test --workspace {{ARGS}}

# Prints the files that a forwarded request passes.
walk:
    cargo test --test walk -- --nocapture

# Looks for bytes that break a parser; needs cargo-fuzz. For example: just fuzz message -max_total_time=60
fuzz TARGET *ARGS:
    mkdir -p target/fuzz/corpus/{{TARGET}} && cargo +nightly fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz -s none {{TARGET}} target/fuzz/corpus/{{TARGET}} tests/fuzz/corpus/{{TARGET}} -- -rss_limit_mb=2048 {{ARGS}}

# Licences and packages; needs cargo-deny.
deny:
    cargo deny --locked check bans licenses sources

# Did a function get slower? For example: just bench push, just bench --save-baseline before
bench *ARGS:
    cargo bench --bench '*' -- {{ARGS}}

# What does an operator get? For example: just perf compare, just perf load --depth 1, just perf idle
perf *ARGS:
    cargo build --release --workspace && cargo run --release -p tangelo-perf -- {{ARGS}}

# The gateway; without arguments with its built-in chat room.
run *ARGS:
    cargo run --release -- {{ARGS}}

# The documentation, in a browser.
doc:
    cargo doc --workspace --no-deps --open

# The Autobahn suite of WebSocket; needs Python 2.7.
autobahn:
    cargo test --test autobahn -- --ignored --nocapture
