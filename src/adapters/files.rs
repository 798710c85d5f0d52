//! Small files, replaced atomically and read with a limit.
//!
//! Invariant: a reader sees the old or the new content, even after a crash. The reader may have
//! another UID than the writer, so modes are set whatever the umask is.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

/// Readable for all: the two containers of a pod may run as different users.
pub const MODE_DATA: u32 = 0o644;
/// Executable for all, for the same reason.
pub const MODE_PROGRAM: u32 = 0o755;

/// Replaces `dir/name`: temporary file, fsync, rename, fsync of the directory.
///
/// # Errors
/// The file system's. The old content is then still there.
pub fn replace<R: Read>(dir: &Path, name: &str, content: R, mode: u32) -> io::Result<()> {
    rename_into_place(dir, name, content, mode, File::sync_all)?;
    File::open(dir)?.sync_all()
}

/// Replaces `dir/name` atomically, but a crash of the node may restore the old content.
///
/// # Errors
/// The file system's. The old content is then still there.
pub fn replace_unsynced<R: Read>(dir: &Path, name: &str, content: R, mode: u32) -> io::Result<()> {
    rename_into_place(dir, name, content, mode, |_| Ok(()))
}

fn rename_into_place(
    dir: &Path,
    name: &str,
    mut content: impl Read,
    mode: u32,
    sync: fn(&File) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}.new"));
    let written = (|| {
        // A file that a crash left behind may belong to another user.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        io::copy(&mut content, &mut file)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.flush()?;
        sync(&file)?;
        drop(file);
        fs::rename(&temporary, dir.join(name))
    })();
    if written.is_err() {
        // Best effort: the file only takes room.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Reads a regular file of at most `max` bytes; `None` if it does not exist.
///
/// # Errors
/// The file system's. A larger file, or one that is not regular.
pub fn read(path: &Path, max: usize) -> io::Result<Option<Vec<u8>>> {
    let absent = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        )
    };
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => return Err(io::Error::other("it is not a regular file")),
        Err(error) if absent(&error) => return Ok(None),
        Err(error) => return Err(error),
    }
    let file = match File::open(path) {
        Err(error) if absent(&error) => return Ok(None),
        opened => opened?,
    };
    let mut content = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut content)?;
    if content.len() > max {
        return Err(io::Error::other(format!("it is larger than {max} bytes")));
    }
    Ok(Some(content))
}

/// Replaces the content of a mounted volume as kubelet does, for `demo` and tests: writes a new
/// directory, moves the link `..data` to it, removes the old directory.
///
/// # Errors
/// The file system's.
pub fn swap_volume<'a>(
    volume: &Path,
    files: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> io::Result<()> {
    let data = volume.join("..data");
    let old = fs::read_link(&data).ok();
    let generation = old
        .as_ref()
        .and_then(|old| old.to_str()?.rsplit_once('.')?.1.parse::<u32>().ok());
    let name = format!(
        "..2026_11_21_08_00_00.{:09}",
        generation.map_or(0, |last| last + 1)
    );
    let fresh = volume.join(&name);
    fs::create_dir(&fresh)?;
    let mut links = Vec::new();
    for (file, content) in files {
        fs::write(fresh.join(file), content)?;
        links.push(file);
    }
    symlink(&name, volume.join("..data_tmp"))?;
    fs::rename(volume.join("..data_tmp"), &data)?;
    for file in links {
        if !volume.join(file).is_symlink() {
            symlink(Path::new("..data").join(file), volume.join(file))?;
        }
    }
    old.map_or(Ok(()), |old| fs::remove_dir_all(volume.join(old)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_replaced_with_the_requested_mode() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".a.new"), "left behind").unwrap();
        for content in ["one", "two"] {
            replace(dir.path(), "a", content.as_bytes(), MODE_PROGRAM).unwrap();
            assert_eq!(
                read(&dir.path().join("a"), 3).unwrap().unwrap(),
                content.as_bytes()
            );
        }
        let mode = fs::metadata(dir.path().join("a"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn reading_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "1234").unwrap();
        assert!(read(&dir.path().join("a"), 3).is_err());
        assert!(read(dir.path(), 3).is_err());
        assert_eq!(read(&dir.path().join("b"), 3).unwrap(), None);
        assert_eq!(read(&dir.path().join("a/b"), 3).unwrap(), None);
    }
}
