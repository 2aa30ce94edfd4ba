//! `crons.json` of a Pomelo project → [`Config::crons`].

use serde_json::{Map, Value as Json};

use super::Result;
use super::project::Project;
use crate::config::{Config, Cron};
use crate::handler::cron::Schedule;

impl Project {
    /// Fills in the crons of this server, which `config` identifies.
    ///
    /// As in Pomelo, lists of other server types and entries with the `serverId` of another server do not
    /// count. An entry that cannot run becomes a warning.
    pub(super) fn crons(&self, config: &mut Config) -> Result<()> {
        let Some((file, types)) = self.section("crons.json", |_| true)? else {
            return Ok(());
        };
        let own_type = config.server_type.clone();
        let list = match &types {
            Json::Object(types) if !types.contains_key(&own_type) => return Ok(()),
            Json::Object(types) => types[&own_type].as_array(),
            // As in Pomelo, a list has no server types, so an empty one has no crons.
            Json::Array(list) if list.is_empty() => return Ok(()),
            _ => None,
        };
        let file = file.display();
        let Some(list) = list else {
            let accepted = format!("expected an object with a list of crons in {own_type:?}");
            config.warnings.push(format!("{file}: ignored; {accepted}"));
            return Ok(());
        };
        let mut crons: Vec<(usize, Cron)> = Vec::new();
        for (index, entry) in list.iter().enumerate() {
            if entry
                .as_object()
                .is_some_and(|entry| !is_for(entry, &config.id))
            {
                continue;
            }
            let cron = cron(entry, config).and_then(|cron| {
                match crons.iter().find(|(_, known)| known.id == cron.id) {
                    None => Ok(cron),
                    Some((first, _)) => Err(format!(
                        ".id = {}: {own_type}[{first}] has the same id",
                        cron.id
                    )),
                }
            });
            match cron {
                Ok(cron) => crons.push((index, cron)),
                Err(what) => config.warnings.push(format!(
                    "{file}: {own_type}[{index}]{what}; tangelo leaves this cron out"
                )),
            }
        }
        config.crons = crons.into_iter().map(|(_, cron)| cron).collect();
        Ok(())
    }
}

/// Returns whether an entry is for the server `id`. As in Pomelo, an entry without a `serverId`, or with a falsy
/// one, is for all servers of its type.
fn is_for(entry: &Map<String, Json>, id: &str) -> bool {
    match entry.get("serverId") {
        None | Some(Json::Null | Json::Bool(false)) => true,
        Some(Json::String(server)) => server.is_empty() || server == id,
        Some(_) => false,
    }
}

/// Reads an entry; the error begins with the field.
fn cron(entry: &Json, config: &Config) -> Result<Cron, String> {
    let Json::Object(entry) = entry else {
        return Err(": expected an object".into());
    };
    let given = |field: &str| entry.get(field).filter(|value| !value.is_null());
    let id = match given("id") {
        Some(id @ (Json::Number(_) | Json::String(_))) => id.to_string(),
        Some(_) => return Err(".id: expected a number, or a text in quotes".into()),
        None => return Err(".id: missing; expected a number, or a text in quotes".into()),
    };
    let text = |field: &str| match given(field) {
        Some(Json::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!(".{field}: expected a text in quotes")),
        None => Err(format!(".{field}: missing; expected a text in quotes")),
    };
    let (time, action) = (text("time")?, text("action")?);
    Schedule::parse(&time, config.dialect).map_err(|what| format!(".time: {what}"))?;
    if !action.contains('.') {
        let accepted = "service.method, such as \"moneyCron.sendMoney\"";
        return Err(format!(".action = {action:?}: expected {accepted}"));
    }
    Ok(Cron { id, time, action })
}

#[cfg(test)]
mod tests {
    use super::super::project::tests::Folder;
    use super::*;
    use crate::dialect::Dialect;

    /// The crons and the warnings.
    fn load(dialect: Dialect, files: &[(&str, &str)]) -> (Vec<Cron>, Vec<String>) {
        let folder = Folder::new(files);
        let mut config = Config {
            dialect,
            ..Config::default()
        };
        let project = Project {
            dir: folder.path(""),
            env: "development".into(),
            env_knob: "--env",
            found: Default::default(),
        };
        let path = project.dir.display().to_string();
        project.crons(&mut config).unwrap();
        let warnings = config.warnings.iter().map(|text| text.replace(&path, ""));
        (config.crons, warnings.collect())
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
        let expected = (vec![cron("1", "a.all"), cron("\"1\"", "a.own")], vec![]);
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
            &[("crons.json", "[]")],
            &[("crons.json", r#"{"development": []}"#)],
        ] {
            assert_eq!(load(Dialect::Pomelo, files), (vec![], vec![]), "{files:?}");
        }
    }

    #[test]
    fn a_cron_that_cannot_run_is_left_out_with_a_warning() {
        let fields = "expected six fields, second minute hour day month weekday, such as \
                      \"0 30 10 * * *\"";
        for (text, expected) in [
            (
                "[7]",
                "crons.json: ignored; expected an object with a list of crons in \"connector\"",
            ),
            (
                r#"{"connector": {}}"#,
                "crons.json: ignored; expected an object with a list of crons in \"connector\"",
            ),
            (
                r#"{"connector": [7]}"#,
                "crons.json: connector[0]: expected an object",
            ),
            (
                r#"{"connector": [{"time": "", "action": ""}]}"#,
                "crons.json: connector[0].id: missing; expected a number, or a text in quotes",
            ),
            (
                r#"{"connector": [{"id": 1, "time": 7}]}"#,
                "crons.json: connector[0].time: expected a text in quotes",
            ),
            (
                r#"{"connector": [{"id": 1, "time": "* * * * *", "action": "a.b"}]}"#,
                &format!("crons.json: connector[0].time: \"* * * * *\" has 5 fields; {fields}"),
            ),
            (
                r#"{"connector": [{"id": 1, "time": "* * * * * *"}]}"#,
                "crons.json: connector[0].action: missing; expected a text in quotes",
            ),
            (
                r#"{"connector": [{"id": 1, "time": "* * * * * *", "action": "ab"}]}"#,
                "crons.json: connector[0].action = \"ab\": expected service.method, \
                 such as \"moneyCron.sendMoney\"",
            ),
            (
                r#"{"connector": [{"id": 1, "time": "* * * * * *", "action": "a.b"},
                                  {"id": 1, "time": "* * * * * *", "action": "a.c"}]}"#,
                "crons.json: connector[1].id = 1: connector[0] has the same id",
            ),
        ] {
            let (_, warnings) = load(Dialect::Pomelo, &[("crons.json", text)]);
            let left_out = format!("{expected}; tangelo leaves this cron out");
            assert!(
                warnings == [expected] || warnings == [left_out],
                "{text}: {warnings:?}"
            );
        }
    }

    #[test]
    fn a_time_is_read_as_the_dialect_reads_it() {
        let text = r#"{"connector": [{"id": 1, "time": "0 0 0 0/5 * *", "action": "a.b"}]}"#;
        let crons = |dialect| load(dialect, &[("crons.json", text)]).0.len();
        assert_eq!(crons(Dialect::Pomelo), 1);
        assert_eq!(crons(Dialect::Pinus), 0);
    }
}
