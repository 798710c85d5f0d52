//! Small files, replaced as a whole and read with a limit.
//!
//! Invariant: a reader sees the old content or the new content, also after a crash; and it may have another UID than the
//! writer, so modes are set whatever the umask is.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Readable for everyone: the two containers of a pod may run as different users.
pub const MODE_DATA: u32 = 0o644;
/// Executable for everyone, for the same reason.
pub const MODE_PROGRAM: u32 = 0o755;

/// Replaces `dir/name`: temporary file, fsync, rename, fsync of the directory.
///
/// # Errors
/// Whatever the file system says; the old content is still there then.
pub fn replace(dir: &Path, name: &str, content: impl Read, mode: u32) -> io::Result<()> {
    rename_into_place(dir, name, content, mode, File::sync_all)?;
    File::open(dir)?.sync_all()
}

/// Replaces `dir/name` in one step, too, but an end of the whole node may take it back.
///
/// # Errors
/// Whatever the file system says; the old content is still there then.
pub fn replace_unsynced(dir: &Path, name: &str, content: impl Read, mode: u32) -> io::Result<()> {
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
        // One that a crash left behind may belong to another user.
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
        // It would only take room; there is nothing to do about it if that fails, too.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Reads a regular file of at most `most` bytes; `None` if there is none.
///
/// # Errors
/// Whatever the file system says, and when the file is larger or not a regular file.
pub fn read(path: &Path, most: usize) -> io::Result<Option<Vec<u8>>> {
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
    file.take(most as u64 + 1).read_to_end(&mut content)?;
    if content.len() > most {
        return Err(io::Error::other(format!("it is larger than {most} bytes")));
    }
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_replaced_with_the_mode_asked_for() {
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
