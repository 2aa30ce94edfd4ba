//! The built-in filters in the form of the configuration.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;

use super::{Filter, Filters, rate, serial, time, timeout, toobusy};
use crate::wire::json;

const DURATIONS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(3600);
const NUMBERS: RangeInclusive<u32> = 1..=1_000_000;

/// A built-in filter with its values.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Setting {
    Serial {
        timeout: Duration,
        timeout_response: Option<Bytes>,
    },
    Time,
    Timeout {
        after: Duration,
        pending_max: u32,
    },
    Toobusy {
        lag_max: Duration,
    },
    Rate {
        per_second: u32,
        burst: u32,
    },
}

/// The filters of `filter.global` or of `filter.local`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FilterSettings(Vec<Setting>);

impl FilterSettings {
    /// Parses the texts of the filters. An error quotes the wrong one.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, String> {
        let setting = |text: &String| {
            Setting::parse(text).ok_or_else(|| {
            format!(
                "{text:?} is not a filter; expected \"serial 3s\", \"serial 3s {{JSON}}\", \"time\", \
                 \"timeout 3s 500\", \"toobusy 70ms\", \"rate 50/s 100\", with durations of 1ms to \
                 1h and numbers of 1 to 1000000"
            )
            })
        };
        texts
            .iter()
            .map(setting)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Filters {
    /// Makes the filters of a configuration.
    pub(crate) fn configured(
        forward_log: bool,
        global: &FilterSettings,
        local: &FilterSettings,
    ) -> Self {
        let mut filters = Self {
            forward_log,
            ..Self::default()
        };
        for (settings, is_global) in [(global, true), (local, false)] {
            for setting in &settings.0 {
                setting.clone().add(&mut filters, is_global);
            }
        }
        filters
    }
}

impl Setting {
    fn parse(text: &str) -> Option<Self> {
        let (name, values) = first_word(text);
        let (first, second) = first_word(values);
        match name {
            "serial" => Some(Self::Serial {
                timeout: duration(first, Duration::from_secs(3))?,
                timeout_response: match second {
                    "" => None,
                    json => Some(json_text(json)?),
                },
            }),
            "time" if values.is_empty() => Some(Self::Time),
            "timeout" => Some(Self::Timeout {
                after: duration(first, Duration::from_secs(3))?,
                pending_max: number(second, Some(500))?,
            }),
            "toobusy" if second.is_empty() => Some(Self::Toobusy {
                lag_max: duration(first, Duration::from_millis(70))?,
            }),
            "rate" => {
                let per_second = number(first.strip_suffix("/s")?, None)?;
                let burst = number(second, Some(per_second))?;
                Some(Self::Rate { per_second, burst })
            }
            _ => None,
        }
    }

    fn add(self, filters: &mut Filters, global: bool) {
        match self {
            Self::Serial {
                timeout,
                timeout_response,
            } => add(filters, global, serial(timeout, timeout_response)),
            Self::Time => add(filters, global, time()),
            Self::Timeout { after, pending_max } => {
                add(filters, global, timeout(after, pending_max as usize));
            }
            Self::Toobusy { lag_max } => add(filters, global, toobusy(lag_max)),
            Self::Rate { per_second, burst } => add(filters, global, rate(per_second, burst)),
        }
    }
}

fn add(filters: &mut Filters, global: bool, filter: impl Filter) {
    if global {
        filters.global_filter(filter);
    } else {
        filters.filter(filter);
    }
}

/// Splits off the first word. Either part may be empty.
fn first_word(text: &str) -> (&str, &str) {
    let text = text.trim();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn duration(text: &str, default: Duration) -> Option<Duration> {
    if text.is_empty() {
        return Some(default);
    }
    let duration = humantime::parse_duration(text).ok()?;
    DURATIONS.contains(&duration).then_some(duration)
}

fn number(text: &str, default: Option<u32>) -> Option<u32> {
    if text.is_empty() {
        return default;
    }
    let number = text.parse().ok()?;
    NUMBERS.contains(&number).then_some(number)
}

fn json_text(text: &str) -> Option<Bytes> {
    json::validate(text.as_bytes()).ok()?;
    Some(text.as_bytes().to_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_its_name_and_its_values() {
        let ms = Duration::from_millis;
        let serial = |timeout, response: Option<&'static str>| Setting::Serial {
            timeout,
            timeout_response: response.map(Bytes::from),
        };
        let timeout = |after, pending_max| Setting::Timeout { after, pending_max };
        let rate = |per_second, burst| Setting::Rate { per_second, burst };
        for (text, expected) in [
            ("serial", serial(ms(3000), None)),
            (" serial  250ms ", serial(ms(250), None)),
            (
                r#"serial 3s {"msg": "too late"}"#,
                serial(ms(3000), Some(r#"{"msg": "too late"}"#)),
            ),
            ("time", Setting::Time),
            ("timeout", timeout(ms(3000), 500)),
            ("timeout 1h 7", timeout(ms(3_600_000), 7)),
            ("toobusy", Setting::Toobusy { lag_max: ms(70) }),
            ("toobusy 1s", Setting::Toobusy { lag_max: ms(1000) }),
            ("rate 50/s", rate(50, 50)),
            ("rate 50/s 100", rate(50, 100)),
        ] {
            assert_eq!(Setting::parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn an_unknown_filter_is_refused_with_the_forms_of_filters() {
        for text in [
            "",
            "cereal",
            "Serial",
            "serial 3",
            "serial 0s",
            "serial 2h",
            "serial 3s {",
            "time 3s",
            "timeout 3s 0",
            "timeout 3s 1000001",
            "timeout 3s 500 1",
            "toobusy 70ms 1",
            "toobusy -1ms",
            "rate",
            "rate /s",
            "rate 50",
            "rate 0/s",
            "rate 50/s x",
            "rate 1.5/s",
        ] {
            let error = FilterSettings::parse(&["time".into(), text.into()]).unwrap_err();
            let start = format!("{text:?} is not a filter; expected \"serial 3s\", ");
            assert!(error.starts_with(&start), "{error}");
        }
        assert!(FilterSettings::parse(&["time".into(), "serial".into()]).is_ok());
    }

    #[test]
    fn configured_filters_are_where_they_were_said_to_be() {
        let global = FilterSettings::parse(&["time".into(), "rate 1/s".into()]).unwrap();
        let local = FilterSettings::parse(&["serial".into()]).unwrap();
        let filters = Filters::configured(false, &global, &local);
        let sides = [&filters.global_before, &filters.before].map(Vec::len);
        assert_eq!(sides, [2, 1]);
        assert_eq!([filters.global_after.len(), filters.after.len()], [2, 1]);
    }
}
