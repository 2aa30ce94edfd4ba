//! `crons.json` of a Pomelo project → [`Config::crons`].

use serde_json::{Map, Value as Json};

use super::Result;
use super::project::Project;
use crate::config::{Config, Cron};
use crate::error::Error;
use crate::handler::cron::Schedule;

impl Project {
    /// Fills in when the crons of this server run; `config` says which server it is.
    ///
    /// As pomelo: the lists of other server types, and entries with the `serverId` of another
    /// server, are none of its business. Unlike there an entry that cannot run, which there is
    /// logged or ends the process, is an error here.
    pub(super) fn crons(&self, config: &mut Config) -> Result<()> {
        let Some((file, types)) = self.section("crons.json", |_| true)? else {
            return Ok(());
        };
        let wrong =
            |place: &str, what: &str| Error::Config(format!("{}: {place}{what}", file.display()));
        let Json::Object(types) = types else {
            let what = "accepted: an object with a list of crons for each server type";
            return Err(wrong("", what));
        };
        let own_type = &config.server_type;
        let list = match types.get(own_type) {
            None => return Ok(()),
            Some(Json::Array(list)) => list,
            Some(_) => return Err(wrong(own_type, ": accepted: a list of crons")),
        };
        let mut crons: Vec<(usize, Cron)> = Vec::new();
        for (index, entry) in list.iter().enumerate() {
            let place = format!("{own_type}[{index}]");
            let Json::Object(entry) = entry else {
                return Err(wrong(&place, ": accepted: an object"));
            };
            if !is_for(entry, &config.id) {
                continue;
            }
            let cron = cron(entry, config).map_err(|what| wrong(&place, &what))?;
            if let Some((first, _)) = crons.iter().find(|(_, known)| known.id == cron.id) {
                let what = format!(".id: {} is used twice, by {own_type}[{first}] too", cron.id);
                return Err(wrong(&place, &what));
            }
            crons.push((index, cron));
        }
        config.crons = crons.into_iter().map(|(_, cron)| cron).collect();
        Ok(())
    }
}

/// As pomelo: an entry without a server is for all of its type, and so is one with a falsy one.
fn is_for(entry: &Map<String, Json>, id: &str) -> bool {
    match entry.get("serverId") {
        None | Some(Json::Null | Json::Bool(false)) => true,
        Some(Json::String(server)) => server.is_empty() || server == id,
        Some(_) => false,
    }
}

/// Reads an entry; the error begins with the field.
fn cron(entry: &Map<String, Json>, config: &Config) -> Result<Cron, String> {
    let given = |field: &str| entry.get(field).filter(|value| !value.is_null());
    let id = match given("id") {
        Some(id @ (Json::Number(_) | Json::String(_))) => id.to_string(),
        Some(_) => return Err(".id: accepted: a number, or a text in quotes".into()),
        None => return Err(".id: missing; accepted: a number, or a text in quotes".into()),
    };
    let text = |field: &str| match given(field) {
        Some(Json::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!(".{field}: accepted: a text in quotes")),
        None => Err(format!(".{field}: missing; accepted: a text in quotes")),
    };
    let (time, action) = (text("time")?, text("action")?);
    Schedule::parse(&time, config.dialect).map_err(|what| format!(".time: {what}"))?;
    if !action.contains('.') {
        let accepted = "accepted: service.method, such as \"moneyCron.sendMoney\"";
        return Err(format!(".action: {action:?} has no dot; {accepted}"));
    }
    Ok(Cron { id, time, action })
}

#[cfg(test)]
mod tests {
    use super::super::project::tests::Folder;
    use super::*;
    use crate::config::Dialect;

    fn load(dialect: Dialect, files: &[(&str, &str)]) -> Result<Vec<Cron>, String> {
        let folder = Folder::new(files);
        let mut config = Config {
            dialect,
            ..Config::default()
        };
        let project = Project {
            dir: folder.path(""),
            env: "development".into(),
            env_knob: "--env",
        };
        let path = project.dir.display().to_string();
        let loaded = project.crons(&mut config);
        loaded.map_err(|error| error.to_string().replace(&path, ""))?;
        Ok(config.crons)
    }

    fn cron(id: &str, action: &str) -> Cron {
        Cron {
            id: id.into(),
            time: "0 30 10 * * *".into(),
            action: action.into(),
        }
    }

    const ALL: &str = r#"{
        "chat": [{"id": 1, "time": "nonsense"}],
        "connector": [
            {"id": 1, "time": "0 30 10 * * *", "action": "a.all", "serverId": ""},
            {"id": 2, "time": "nonsense", "serverId": "connector-2"},
            {"id": "1", "time": "0 30 10 * * *", "action": "a.own", "serverId": "connector-1"}
        ]
    }"#;

    #[test]
    fn a_server_has_the_crons_of_its_type_and_of_itself() {
        let expected = Ok(vec![cron("1", "a.all"), cron("\"1\"", "a.own")]);
        let by_env = format!(r#"{{"production": {{}}, "development": {ALL}}}"#);
        for files in [
            &[("crons.json", ALL)][..],
            &[("crons.json", by_env.as_str())],
            &[("development/crons.json", ALL)],
            &[("crons.json", ALL), ("development/crons.json", "[]")],
        ] {
            assert_eq!(load(Dialect::Pomelo, files), expected, "{files:?}");
        }
        let elsewhere = format!(r#"{{"production": {ALL}}}"#);
        for files in [
            &[][..],
            &[("crons.json", elsewhere.as_str())],
            &[("crons.json", "{}")],
        ] {
            assert_eq!(load(Dialect::Pomelo, files), Ok(vec![]), "{files:?}");
        }
    }

    #[test]
    fn what_is_wrong_names_file_entry_and_field() {
        let fields = "accepted: six fields, second minute hour day month weekday, such as \
                      \"0 30 10 * * *\"";
        for (text, expected) in [
            (
                "[]",
                "crons.json: accepted: an object with a list of crons for each server type",
            ),
            (
                r#"{"connector": {}}"#,
                "crons.json: connector: accepted: a list of crons",
            ),
            (
                r#"{"connector": [7]}"#,
                "crons.json: connector[0]: accepted: an object",
            ),
            (
                r#"{"connector": [{"time": "", "action": ""}]}"#,
                "crons.json: connector[0].id: missing; accepted: a number, or a text in quotes",
            ),
            (
                r#"{"connector": [{"id": 1, "time": 7}]}"#,
                "crons.json: connector[0].time: accepted: a text in quotes",
            ),
            (
                r#"{"connector": [{"id": 1, "time": "* * * * *", "action": "a.b"}]}"#,
                &format!("crons.json: connector[0].time: \"* * * * *\" has 5 fields; {fields}"),
            ),
            (
                r#"{"connector": [{"id": 1, "time": "* * * * * *"}]}"#,
                "crons.json: connector[0].action: missing; accepted: a text in quotes",
            ),
            (
                r#"{"connector": [{"id": 1, "time": "* * * * * *", "action": "ab"}]}"#,
                "crons.json: connector[0].action: \"ab\" has no dot; accepted: service.method, \
                 such as \"moneyCron.sendMoney\"",
            ),
            (
                r#"{"connector": [{"id": 1, "time": "* * * * * *", "action": "a.b"},
                                  {"id": 1, "time": "* * * * * *", "action": "a.c"}]}"#,
                "crons.json: connector[1].id: 1 is used twice, by connector[0] too",
            ),
        ] {
            let refused = load(Dialect::Pomelo, &[("crons.json", text)]);
            assert_eq!(refused, Err(expected.into()), "{text}");
        }
    }

    #[test]
    fn a_time_is_read_as_the_dialect_reads_it() {
        let text = r#"{"connector": [{"id": 1, "time": "0 0 0 0/5 * *", "action": "a.b"}]}"#;
        let crons = |dialect| load(dialect, &[("crons.json", text)]).map(|crons| crons.len());
        assert_eq!(crons(Dialect::Pomelo), Ok(1));
        assert!(crons(Dialect::Pinus).is_err());
    }
}
