//! Watches a directory for changes: inotify on the directory, and a slow poll as a safety net.
//!
//! kubelet updates a mounted volume by swapping its `..data` symlink, so a watch on a file dies at
//! the first swap; a watch on the directory sees every one. Invariants: the watch is armed again
//! *before* [`DirWatch::changed`] returns, so a caller that reads after it misses nothing; between
//! events only the poll wakes the process. A missing, deleted or replaced directory is no error:
//! its nearest existing parent is watched until it exists again.
//!
//! Deliberately absent: what changed. Callers read everything again and compare, because events
//! coalesce and overflow.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::clock;

/// The poll interval without inotify: nodes run out of instances (128 per user by default).
const UNARMED_POLL: Duration = Duration::from_secs(2);

/// Room for a burst of events; the rest stays in the kernel's queue.
const EVENT_BUFFER_BYTES: usize = 4096;

/// Watches one directory. Create it, then read, then wait with [`DirWatch::changed`].
#[derive(Debug)]
pub struct DirWatch {
    dir: PathBuf,
    poll: Duration,
    next_poll: Option<Instant>,
    queue: EventQueueFd,
    watched: WatchTarget,
}

/// The kernel's event queue. Waiting on it needs a runtime, which `new` may not have yet.
#[derive(Debug)]
enum EventQueueFd {
    Idle(OwnedFd),
    Registered(AsyncFd<OwnedFd>),
    Unavailable,
}

/// The active watch descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WatchTarget {
    Directory(i32),
    /// The directory does not exist; the descriptor of a parent.
    Parent(i32),
    Nothing,
}

impl DirWatch {
    /// Arms the watch. `poll` is the longest time between two returns of [`DirWatch::changed`];
    /// [`Duration::MAX`]: events only.
    #[must_use]
    pub fn new(dir: &Path, poll: Duration) -> Self {
        let mut watch = Self {
            dir: dir.to_owned(),
            poll,
            next_poll: None,
            queue: open(),
            watched: WatchTarget::Nothing,
        };
        watch.arm();
        watch
    }

    /// Arms the watch on the directory of a file.
    #[must_use]
    pub fn of_file(path: &Path, poll: Duration) -> Self {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        Self::new(dir.unwrap_or(Path::new(".")), poll)
    }

    /// Resolves when the content may have changed: an event in the directory, its creation,
    /// deletion or replacement, or the poll. Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        if self.next_poll.is_none() {
            self.next_poll = Instant::now().checked_add(self.interval());
        }
        loop {
            let due = self.next_poll;
            let polled = tokio::select! {
                () = wait(&mut self.queue) => false,
                () = clock::at(due) => true,
            };
            let before = self.watched;
            self.arm();
            let still_missing = !matches!(before, WatchTarget::Directory(_))
                && !matches!(self.watched, WatchTarget::Directory(_));
            if polled {
                self.next_poll = None;
            } else if still_missing {
                continue;
            }
            return;
        }
    }

    /// Calls `reload` now and after every change, for as long as this is polled.
    pub async fn follow(mut self, mut reload: impl FnMut()) {
        loop {
            // Before the first wait too: files may have changed between loading and watching.
            reload();
            self.changed().await;
        }
    }

    fn interval(&self) -> Duration {
        match self.watched {
            WatchTarget::Nothing => self.poll.min(UNARMED_POLL),
            WatchTarget::Directory(_) | WatchTarget::Parent(_) => self.poll,
        }
    }

    /// Watches the directory, or its nearest existing parent. Repeating it is harmless: the kernel
    /// returns the same descriptor for the same directory.
    fn arm(&mut self) {
        if matches!(self.queue, EventQueueFd::Unavailable) {
            self.queue = open();
        }
        let fd = match &self.queue {
            EventQueueFd::Idle(fd) => fd,
            EventQueueFd::Registered(fd) => fd.get_ref(),
            EventQueueFd::Unavailable => return,
        };
        let content = WatchFlags::CREATE
            | WatchFlags::MOVE
            | WatchFlags::DELETE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        let add = |dir: &Path| inotify::add_watch(fd, dir, content | WatchFlags::ONLYDIR);
        let mut now = add(&self.dir).map_or(WatchTarget::Nothing, WatchTarget::Directory);
        if now == WatchTarget::Nothing {
            let parents = self
                .dir
                .ancestors()
                .skip(1)
                .filter(|parent| !parent.as_os_str().is_empty());
            now = parents
                .map(add)
                .find_map(Result::ok)
                .map_or(WatchTarget::Nothing, WatchTarget::Parent);
            // The directory may have appeared while its parent was being armed.
            now = add(&self.dir).map_or(now, WatchTarget::Directory);
        }
        if let WatchTarget::Directory(old) | WatchTarget::Parent(old) = self.watched
            && !matches!(now, WatchTarget::Directory(new) | WatchTarget::Parent(new) if new == old)
        {
            // Fails if the directory is gone, which is the usual case.
            let _ = inotify::remove_watch(fd, old);
        }
        self.watched = now;
    }
}

fn open() -> EventQueueFd {
    inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
        .map_or(EventQueueFd::Unavailable, EventQueueFd::Idle)
}

#[allow(
    deprecated,
    reason = "deprecated for types whose descriptor can change under the reactor; an OwnedFd's cannot, and the successor is an unsafe function"
)]
fn register(fd: OwnedFd) -> EventQueueFd {
    AsyncFd::new(fd).map_or(EventQueueFd::Unavailable, EventQueueFd::Registered)
}

/// Waits for at least one event and empties the queue; never resolves without inotify.
async fn wait(queue: &mut EventQueueFd) {
    *queue = match std::mem::replace(queue, EventQueueFd::Unavailable) {
        EventQueueFd::Idle(fd) => register(fd),
        other => other,
    };
    let EventQueueFd::Registered(fd) = queue else {
        return std::future::pending().await;
    };
    loop {
        let Ok(mut ready) = fd.readable().await else {
            return std::future::pending().await;
        };
        if let Ok(true) = ready.try_io(|fd| drain(fd.get_ref())).unwrap_or(Ok(false)) {
            return;
        }
    }
}

/// Reads all events; returns whether there was one.
fn drain(fd: &OwnedFd) -> io::Result<bool> {
    let mut buffer = [0_u8; EVENT_BUFFER_BYTES];
    let mut any = false;
    loop {
        match rustix::io::read(fd, &mut buffer[..]) {
            Ok(0) => return Ok(any),
            Ok(_) => any = true,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if any => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use crate::adapters::files;

    const DEADLINE: Duration = Duration::from_mins(1);

    async fn soon(watch: &mut DirWatch) {
        tokio::time::timeout(DEADLINE, watch.changed())
            .await
            .expect("a change is seen");
    }

    async fn quiet(watch: &mut DirWatch) {
        let waited = tokio::time::timeout(Duration::from_millis(50), watch.changed()).await;
        assert!(
            waited.is_err(),
            "nothing happened, and yet the watch returned"
        );
    }

    #[tokio::test]
    async fn every_kubelet_swap_is_seen_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = DirWatch::new(dir.path(), Duration::MAX);
        for round in 0..5 {
            files::swap_volume(dir.path(), [("key", round.to_string().as_str())]).unwrap();
            soon(&mut watch).await;
            assert_eq!(
                fs::read_to_string(dir.path().join("key")).unwrap(),
                round.to_string()
            );
            quiet(&mut watch).await;
        }
    }

    #[tokio::test]
    async fn a_directory_may_come_late_go_and_come_back() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/b");
        let mut watch = DirWatch::new(&dir, Duration::MAX);
        fs::write(parent.path().join("noise"), "").unwrap();
        quiet(&mut watch).await;
        for _ in 0..3 {
            fs::create_dir_all(&dir).unwrap();
            soon(&mut watch).await;
            fs::write(dir.join("file"), "1").unwrap();
            soon(&mut watch).await;
            fs::remove_dir_all(parent.path().join("a")).unwrap();
            while tokio::time::timeout(Duration::from_millis(50), watch.changed())
                .await
                .is_ok()
            {}
        }
    }

    #[tokio::test]
    async fn a_replaced_directory_is_followed() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("dir");
        fs::create_dir(&dir).unwrap();
        let mut watch = DirWatch::new(&dir, Duration::MAX);
        fs::rename(&dir, parent.path().join("old")).unwrap();
        fs::create_dir(&dir).unwrap();
        soon(&mut watch).await;
        fs::write(dir.join("file"), "1").unwrap();
        soon(&mut watch).await;
        fs::write(parent.path().join("old/file"), "1").unwrap();
        quiet(&mut watch).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_poll_comes_even_when_the_wait_is_cut_short() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = DirWatch::new(dir.path(), Duration::from_mins(1));
        let start = Instant::now();
        for _ in 0..5 {
            let cut = tokio::time::timeout(Duration::from_secs(10), watch.changed()).await;
            assert!(cut.is_err());
        }
        watch.changed().await;
        assert_eq!(start.elapsed().as_secs(), 60);
        watch.changed().await;
        assert_eq!(start.elapsed().as_secs(), 120);
    }

    #[test]
    fn it_can_be_made_without_a_runtime() {
        let _ = DirWatch::new(Path::new("/does/not/exist"), Duration::from_secs(1));
    }
}
