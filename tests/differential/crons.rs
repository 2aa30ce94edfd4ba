//! Times of crons through tangelo and through the genuine schedulers.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use tangelo::config::Dialect;
use tangelo::handler::cron::Schedule;

use super::peer;
use super::random::Random;

const TIMES: usize = 4_000;
/// Moments from which the next times are looked for.
const MOMENTS: usize = 4;

#[test]
fn a_cron_comes_when_the_genuine_scheduler_says() {
    let mut random = Random::from_seed("DIFFERENTIAL_SEED");
    for (dialect, name) in [(Dialect::Pomelo, "pomelo"), (Dialect::Pinus, "pinus")] {
        let lines: Vec<Value> = (0..TIMES).map(|_| line(&mut random)).collect();
        let (mut refused, mut came) = (0, 0);
        for (line, expected) in lines
            .iter()
            .zip(peer::ask("cron", "cron.js", &[name], &lines))
        {
            let text = line["time"].as_str().unwrap();
            let moments = line["after"].as_array().unwrap();
            let got = match Schedule::parse(text, dialect) {
                Ok(schedule) => moments.iter().map(|at| next(&schedule, at)).collect(),
                Err(_) => Value::Null,
            };
            let never = Value::from(vec![Value::Null; MOMENTS]);
            let expected = if expected == never {
                Value::Null
            } else {
                expected
            };
            assert_eq!(got, expected, "{name} {line}");
            refused += usize::from(got.is_null());
            came += usize::from(!got.is_null());
        }
        println!("{name}: {came} times, {refused} refused");
        assert!(came > TIMES / 4 && refused > TIMES / 20, "{came} {refused}");
    }
}

fn next(schedule: &Schedule, after: &Value) -> Value {
    let after = Timestamp::from_millisecond(after.as_i64().unwrap()).unwrap();
    let mut at = after.to_zoned(TimeZone::UTC);
    let times = [(); 3].map(|()| {
        at = schedule.next(&at).expect("the schedule has a next time");
        at.timestamp().as_millisecond()
    });
    json!(times)
}

fn line(random: &mut Random) -> Value {
    const LIMITS: [(usize, usize); 6] = [(0, 59), (0, 59), (0, 24), (1, 31), (0, 11), (0, 6)];
    let fields = LIMITS.map(|limits| field(random, limits));
    let after = [(); MOMENTS].map(|()| moment(random));
    json!({ "time": fields.join(" "), "after": after })
}

/// Some moment of 80 years.
fn moment(random: &mut Random) -> u64 {
    1 + random.below(80 * 365 * 86_400_000) as u64
}

fn field(random: &mut Random, limits: (usize, usize)) -> String {
    if random.one_in(3) {
        return "*".into();
    }
    let parts = if random.one_in(3) { 3 } else { 1 };
    let parts: Vec<String> = (0..parts).map(|_| part(random, limits)).collect();
    parts.join(",")
}

fn part(random: &mut Random, (first, last): (usize, usize)) -> String {
    // Now and then out of range.
    let number = |random: &mut Random| match random.one_in(60) {
        true => last + 1 + random.below(3),
        false => first + random.below(last - first + 1),
    };
    match random.below(4) {
        0 => format!("{}-{}", number(random), number(random)),
        1 => format!("{}/{}", random.below(last), random.below(last + 5)),
        _ => number(random).to_string(),
    }
}
