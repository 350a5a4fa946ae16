//! Which files are read, and what they say.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Env, Flags,
    groups::{self, Older},
    json,
    problem::Problem,
    section::Ledger,
    toml,
    tree::{Format, Source, Table, merge},
    yaml,
};

/// The files that are read where none is named, those that are there.
const DEFAULTS: [&str; 4] = ["config.toml", "config.json", "config.yaml", "config.yml"];

/// The variable that names the file.
pub(super) const CONFIG_PATH: &str = "CONFIG_PATH";

/// What the files say together.
pub(super) struct Files {
    /// Every setting of every file.
    pub(super) root: Table,
    /// The names of the files, in the order in which they were read.
    pub(super) sources: Vec<Arc<Source>>,
    /// Whether each could be read. Otherwise what seems to be missing may stand in one that could not.
    pub(super) complete: bool,
    /// What an older `config.yaml` says that is no setting of ours.
    pub(super) older: Older,
}

/// Reads the file that `flags` or `env` names, else the files of `dir` that have the usual names.
pub(super) fn files(flags: &Flags, env: &Env, dir: &Path, ledger: &mut Ledger) -> Files {
    let named = flags.config.as_deref().map(|path| (path, None));
    let named = named.or_else(|| env.get(CONFIG_PATH).map(|path| (Path::new(path), Some(CONFIG_PATH))));
    let (root, older) = (Table::default(), Older::default());
    let mut files = Files { root, sources: Vec::new(), complete: true, older };
    let paths = match named {
        Some((path, _)) => vec![path.to_path_buf()],
        // `symlink_metadata`: a link that leads nowhere is a mistake, not an absence.
        None => DEFAULTS
            .map(PathBuf::from)
            .into_iter()
            .filter(|name| dir.join(name).symlink_metadata().is_ok())
            .collect(),
    };
    for path in paths {
        match file(dir, &path, &mut ledger.problems) {
            Ok((source, table)) => {
                match table {
                    Some(mut table) => {
                        if source.format == Format::Yaml {
                            groups::translate(&mut table, &mut files.older, ledger);
                        }
                        merge(&mut files.root, table, &mut ledger.problems);
                    }
                    None => files.complete = false,
                }
                files.sources.push(source);
            }
            Err(problem) => {
                files.complete = false;
                let variable = named.and_then(|(_, variable)| variable);
                ledger.problems.push(match variable {
                    Some(variable) => {
                        Problem { hint: problem.hint.or(Some(format!("{variable} names it"))), ..problem }
                    }
                    None => problem,
                });
            }
        }
    }
    files
}

/// Reads one file. What is wrong inside it goes to `problems`, and then there is no table.
fn file(
    dir: &Path,
    path: &Path,
    problems: &mut Vec<Problem>,
) -> Result<(Arc<Source>, Option<Table>), Problem> {
    let name = path.display().to_string();
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    let format = match extension.as_deref() {
        Some("toml") => Format::Toml,
        Some("json") => Format::Json,
        Some("yaml" | "yml") => Format::Yaml,
        _ => {
            let hint = "the name must end in .toml, .json, .yaml or .yml";
            return Err(Problem::new(&name, "", "the format of this file is not known").hint(hint));
        }
    };
    let full = dir.join(path);
    let text = read_text(&full).map_err(|reason| Problem::new(&name, "", reason))?;
    let text = text.trim_start_matches('\u{feff}');
    let folder = full.parent().unwrap_or(dir).to_path_buf();
    let source = Arc::new(Source { name, folder, format });
    let table = match format {
        Format::Toml => toml::parse(text, &source, problems),
        Format::Json => json::parse(text, &source, problems),
        Format::Yaml => yaml::parse(text, &source, problems),
    };
    Ok((source, table))
}

/// The text of a file, or why there is none.
pub(super) fn read_text(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::IsADirectory => "this is a directory, not a file".to_owned(),
        _ => format!("cannot be read: {error}"),
    })?;
    String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())
}
