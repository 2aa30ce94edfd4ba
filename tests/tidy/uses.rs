//! Uses between the files of a crate. A use of a re-exported name is one of the file that defines it.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, inline_modules, tokens};

/// The files of one crate.
pub(crate) struct Program {
    pub(crate) modules: Vec<Module>,
}

/// A file as a module.
pub(crate) struct Module {
    pub(crate) file: Source,
    /// The names of the modules from the root to this one.
    path: Vec<String>,
    /// The items that it defines.
    items: BTreeSet<String>,
    /// The names that it imports, each with its path from the root; `*` stands for all of them.
    imports: Vec<(String, Vec<String>)>,
    /// Every path in it, from the root, with its place.
    paths: Vec<(usize, Vec<String>)>,
}

impl Program {
    pub(crate) fn new(files: Vec<Source>, root: &str) -> Self {
        let modules = files.into_iter().map(|file| Module::new(file, root));
        Self {
            modules: modules.collect(),
        }
    }

    /// For each file the files that it uses, each with the place of the first use; but for the modules
    /// around it and in it.
    pub(crate) fn uses(&self) -> Vec<BTreeMap<usize, usize>> {
        let of = |module: &Module| {
            let mut uses = BTreeMap::new();
            for (at, path) in &module.paths {
                let target = self.definition(path, 0);
                let other = &self.modules[target].path;
                if !module.path.starts_with(other) && !other.starts_with(&module.path) {
                    uses.entry(target).or_insert(*at);
                }
            }
            uses
        };
        self.modules.iter().map(of).collect()
    }

    /// The file that defines what a path from the root names.
    fn definition(&self, path: &[String], depth: usize) -> usize {
        let files = self.modules.iter().enumerate();
        let on_the_way = files.filter(|(_, module)| path.starts_with(&module.path));
        let longest = on_the_way.max_by_key(|(_, module)| module.path.len());
        let (index, module) = longest.expect("every path begins at the root");
        let rest = &path[module.path.len()..];
        let Some(name) = rest.first() else {
            return index;
        };
        // The bound ends circles of imports.
        if depth == 8 || module.items.contains(name) {
            return index;
        }
        for (import, target) in &module.imports {
            let (to, rest) = match import {
                import if import == name => (target, &rest[1..]),
                import if import == "*" && !module.path.starts_with(target) => (target, rest),
                _ => continue,
            };
            let found = self.definition(&[to, rest].concat(), depth + 1);
            if import == name || self.modules[found].items.contains(name) {
                return found;
            }
        }
        index
    }
}

impl Module {
    fn new(file: Source, root: &str) -> Self {
        let inside = file.path.strip_prefix(root).unwrap_or(&file.path);
        let inside = inside.trim_end_matches(".rs").split('/');
        let names = inside.filter(|name| !matches!(*name, "lib" | "main" | "mod"));
        let path: Vec<String> = names.map(str::to_owned).collect();
        let tokens: Vec<_> = tokens(&file.code).collect();
        let inline = inline_modules(&tokens);
        let items = tokens.windows(3).filter_map(|three| match three {
            [(_, "macro_rules"), (_, "!"), (_, name)] => Some(*name),
            [(_, word), (_, name), _] if ITEMS.contains(word) => Some(*name),
            _ => None,
        });
        let items = items.map(str::to_owned).collect();
        let (mut imports, mut paths) = (Vec::new(), Vec::new());
        let mut next = 0;
        while next < tokens.len() {
            let index = next;
            let import = tokens[index].1 == "use";
            let leads = matches!(tokens[index].1, "crate" | "super" | "self");
            let starts = leads && tokens.get(index + 1).is_some_and(|(_, next)| *next == "::");
            next += 1;
            if !import && (!starts || index > 0 && tokens[index - 1].1 == "::") {
                continue;
            }
            let mut from = path.clone();
            from.extend(inline[index].iter().map(|name| (*name).to_owned()));
            let mut tree = Vec::new();
            next = read_tree(&tokens, index + usize::from(import), &[], &mut tree).max(next);
            for (at, name, names) in tree {
                let path = absolute(&from, &names);
                if import && inline[index].is_empty() {
                    imports.push((name.to_owned(), path.clone()));
                }
                paths.push((at, path));
            }
        }
        Self {
            path,
            items,
            imports,
            paths,
            file,
        }
    }
}

const ITEMS: &[&str] = &[
    "fn", "struct", "enum", "trait", "type", "const", "static", "union",
];

/// Reads a path or a tree of imports; for each name in it its place, the name that it has here, and its
/// path. Returns the index behind it.
fn read_tree<'a>(
    tokens: &[(usize, &'a str)],
    mut index: usize,
    before: &[&'a str],
    out: &mut Vec<(usize, &'a str, Vec<&'a str>)>,
) -> usize {
    let text = |index: usize| tokens.get(index).map_or("", |(_, token)| *token);
    let mut path = before.to_vec();
    let at = tokens.get(index).map_or(0, |(at, _)| *at);
    loop {
        match text(index) {
            "{" => {
                while !matches!(text(index), "}" | "") {
                    index = read_tree(tokens, index + 1, &path, out);
                }
                return index + 1;
            }
            "}" => return index,
            "*" => {
                out.push((at, "*", path));
                return index + 1;
            }
            "self" if !before.is_empty() => {}
            name => path.push(name),
        }
        if text(index + 1) != "::" || text(index + 2) == "<" {
            break;
        }
        index += 2;
    }
    let renamed = text(index + 1) == "as";
    let name = if renamed {
        text(index + 2)
    } else {
        path[path.len() - 1]
    };
    out.push((at, name, path));
    index + if renamed { 3 } else { 1 }
}

/// A path as seen from a module, from the root.
fn absolute(from: &[String], names: &[&str]) -> Vec<String> {
    let mut path = from.to_vec();
    for name in names {
        match *name {
            "crate" => path.clear(),
            "super" => drop(path.pop()),
            "self" => {}
            name => path.push(name.to_owned()),
        }
    }
    path
}
