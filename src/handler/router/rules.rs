//! The rules of a configuration that a router follows.

use crate::config::Config;
use crate::handler::cron::Schedule;
use crate::handler::filter::FilterSettings;

/// Built-in filters and crons, parsed.
#[derive(Debug, Clone, Default)]
pub struct HandlerRules {
    pub(super) global_filters: FilterSettings,
    pub(super) local_filters: FilterSettings,
    /// The time of each cron, and the name of its function.
    pub(super) crons: Vec<(Schedule, String)>,
}

impl HandlerRules {
    /// Parses the rules. An error is the key, and a text that quotes the value and names the accepted
    /// ones.
    pub(crate) fn parse(config: &Config) -> Result<Self, (&'static str, String)> {
        let filters = |key, texts| FilterSettings::parse(texts).map_err(|text| (key, text));
        let crons = config.crons.iter().map(|cron| {
            let schedule = Schedule::parse(&cron.time, config.dialect);
            let schedule =
                schedule.map_err(|text| ("crons", format!("{}: {text}", cron.action)))?;
            Ok((schedule, cron.action.clone()))
        });
        Ok(Self {
            global_filters: filters("filter.global", &config.filter.global)?,
            local_filters: filters("filter.local", &config.filter.local)?,
            crons: crons.collect::<Result<_, _>>()?,
        })
    }
}
