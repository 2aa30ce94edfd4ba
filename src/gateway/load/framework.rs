//! The framework of a project: the `package.json` names it.

use std::path::{Path, PathBuf};

use crate::dialect::Dialect;
use crate::gateway::json_file;

/// The frameworks, by the name of their package.
const PACKAGES: [(&str, Dialect); 2] = [("pomelo", Dialect::Pomelo), ("pinus", Dialect::Pinus)];

/// The framework that a project depends on.
pub(super) struct Framework {
    pub(super) dialect: Dialect,
    /// Name of its package.
    pub(super) package: &'static str,
    /// The `package.json`.
    pub(super) file: PathBuf,
}

impl Framework {
    /// Finds the framework of a project: the nearest `package.json` that depends on one, in the folder or above it.
    /// A file that cannot be read, or that depends on both, says nothing.
    pub(super) fn of(app_dir: &Path) -> Option<Self> {
        let app_dir = app_dir.canonicalize().ok()?;
        app_dir.ancestors().find_map(|folder| {
            let file = folder.join("package.json");
            let json = json_file::read(&file).ok()??;
            let dependencies = json.get("dependencies")?;
            let named = |(package, _): &(&str, Dialect)| dependencies.get(package).is_some();
            let mut packages = PACKAGES.into_iter().filter(named);
            match (packages.next(), packages.next()) {
                (Some((package, dialect)), None) => Some(Self {
                    dialect,
                    package,
                    file,
                }),
                _ => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::project::tests::Folder;
    use super::*;

    fn dialect(files: &[(&str, &str)]) -> Option<Dialect> {
        let folder = Folder::new(files);
        let app_dir = folder.path("game/dist");
        std::fs::create_dir_all(&app_dir).unwrap();
        Framework::of(&app_dir).map(|framework| framework.dialect)
    }

    #[test]
    fn the_nearest_package_that_depends_on_one_names_the_framework() {
        let pinus = r#"{"dependencies": {"pinus": "^1.7.4", "ws": "8"}}"#;
        let pomelo = r#"{"name": "pinus", "dependencies": {"pomelo": "2.2.7"}}"#;
        let both = r#"{"dependencies": {"pomelo": "2.2.7", "pinus": "1"}}"#;
        let (own, above, root) = (
            "game/dist/package.json",
            "game/package.json",
            "package.json",
        );
        for (files, expected) in [
            (&[][..], None),
            (&[(own, pinus)], Some(Dialect::Pinus)),
            (&[(above, pinus), (root, pomelo)], Some(Dialect::Pinus)),
            (&[(own, "{}"), (above, pomelo)], Some(Dialect::Pomelo)),
            (&[(own, both)], None),
            (&[(own, "{"), (above, "[]")], None),
            (&[(own, r#"{"dependencies": ["pinus"]}"#)], None),
        ] {
            assert_eq!(dialect(files), expected, "{files:?}");
        }
    }
}
