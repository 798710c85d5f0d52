//! Manifests from files, folders and standard input, as `kubectl apply -f` reads them.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::input::{self, FileObject, ManifestFile};
use super::{Failure, say};

/// Endings of the files that are read in a folder, as kubectl's.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];
/// Files of all folders together.
const MAX_FILES: usize = 10_000;
/// Folders within folders.
const MAX_DEPTH: usize = 32;

/// An object, and its place for messages.
#[derive(Debug)]
pub(super) struct Manifest {
    /// Name of its file.
    pub(super) source: String,
    /// Where its document begins, from 1.
    pub(super) line: u64,
    pub(super) object: Value,
}

impl Manifest {
    /// `file:line`.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.source, self.line)
    }
}

/// Reads every object of files, folders and `-`, in the order of the arguments and of the names in a
/// folder; with `recursive` also of the folders in it.
pub(super) fn read(paths: &[PathBuf], recursive: bool) -> Result<Vec<Manifest>, Failure> {
    let is_stdin = |path: &&PathBuf| path.as_os_str() == "-";
    if paths.iter().filter(is_stdin).count() > 1 {
        return Err(Failure::Invalid(
            "-f -: standard input can be read once; write -f - once".to_owned(),
        ));
    }
    let mut manifests = Vec::new();
    let mut left = input::MAX_MANIFEST_BYTES;
    for path in paths {
        check_url(path)?;
        if path.is_dir() {
            let mut files = Vec::new();
            find(path, recursive, 0, &mut files)?;
            if files.is_empty() {
                return Err(Failure::Invalid(format!(
                    "{}: contains no file that ends in .yaml, .yml or .json{}",
                    path.display(),
                    if recursive {
                        ""
                    } else {
                        "; -R also reads the folders in it"
                    }
                )));
            }
            let before = manifests.len();
            for file in &files {
                // A folder may also hold values files or patches.
                match input::objects(file, &mut left)? {
                    ManifestFile::Objects(objects) => add(&mut manifests, file, objects),
                    ManifestFile::Other(why) => say(&format!("skipped {why}")),
                }
            }
            if manifests.len() == before {
                return Err(Failure::Invalid(format!(
                    "{}: none of its {} files contains Kubernetes objects",
                    path.display(),
                    files.len()
                )));
            }
        } else {
            match input::objects(path, &mut left)? {
                ManifestFile::Objects(objects) => add(&mut manifests, path, objects),
                ManifestFile::Other(why) => return Err(Failure::Invalid(why)),
            }
        }
    }
    Ok(manifests)
}

fn add(manifests: &mut Vec<Manifest>, file: &Path, objects: Vec<FileObject>) {
    let source = input::name(file);
    manifests.extend(objects.into_iter().map(|object| Manifest {
        source: source.clone(),
        line: object.line,
        object: object.value,
    }));
}

fn check_url(path: &Path) -> Result<(), Failure> {
    let text = path.to_string_lossy();
    if text.starts_with("https://") || text.starts_with("http://") {
        return Err(Failure::Invalid(format!(
            "-f {text}: no file, and nothing is downloaded; write curl -fsSL {text} | timeshard inject -f -"
        )));
    }
    Ok(())
}

/// Collects the manifests of a folder, sorted by name. Links to folders are not followed.
fn find(
    folder: &Path,
    recursive: bool,
    depth: usize,
    files: &mut Vec<PathBuf>,
) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::Invalid(format!("{}: cannot be read: {error}", folder.display()))
    };
    let mut entries = std::fs::read_dir(folder)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if entry.file_type().map_err(failed)?.is_dir() {
            if recursive && depth < MAX_DEPTH {
                find(&path, recursive, depth + 1, files)?;
            }
        } else if ending.is_some_and(|ending| ENDINGS.contains(&ending)) {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(Failure::Invalid(format!(
                "{}: contains more than {MAX_FILES} manifests; name a smaller folder",
                folder.display()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(manifests: &[Manifest]) -> Vec<&str> {
        manifests
            .iter()
            .filter_map(|one| one.object["metadata"]["name"].as_str())
            .collect()
    }

    #[test]
    fn files_and_folders_are_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "b.yaml",
            "kind: A\nmetadata: {name: b}\n---\nkind: A\nmetadata: {name: c}",
        );
        write("a.json", r#"{"kind": "A", "metadata": {"name": "a"}}"#);
        write("values.yaml", "image: x");
        write("empty.yml", "# nothing");
        write("README.md", "kind: A");
        write("deeper/d.yml", "kind: A\nmetadata: {name: d}");
        let folder = dir.path().to_owned();
        let single = dir.path().join("deeper/d.yml");
        assert_eq!(
            names(&read(std::slice::from_ref(&folder), false).unwrap()),
            ["a", "b", "c"]
        );
        assert_eq!(
            names(&read(std::slice::from_ref(&folder), true).unwrap()),
            ["a", "b", "c", "d"]
        );
        assert_eq!(
            names(&read(&[single.clone(), folder.clone()], false).unwrap()),
            ["d", "a", "b", "c"]
        );
        for (paths, recursive, words) in [
            (vec![dir.path().join("values.yaml")], false, "has no kind"),
            (
                vec![dir.path().join("absent.yaml")],
                false,
                "absent.yaml: cannot be read",
            ),
            (
                vec!["-".into(), "-".into()],
                false,
                "standard input can be read once",
            ),
            (
                vec!["https://x/y.yaml".into()],
                false,
                "curl -fsSL https://x/y.yaml | timeshard inject -f -",
            ),
        ] {
            let error = read(&paths, recursive).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        std::fs::create_dir(dir.path().join("hollow")).unwrap();
        let error = read(&[dir.path().join("hollow")], false)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("contains no file that ends in .yaml, .yml or .json; -R"),
            "{error}"
        );
    }
}
