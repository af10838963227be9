//! What the system tells of the files of a policy set: that something has happened, and whether it came in one step.
//!
//! This is inotify, used directly: a directory that only leads to the files is not watched for writes to what else is in
//! it, such as a database, and a move is told apart from a file that is made and then written.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use countersign_policy::Known;

use super::places::{Changed, Places};

/// What may change which file a path leads to.
const LEADING: WatchFlags =
    WatchFlags::CREATE.union(WatchFlags::DELETE).union(WatchFlags::MOVED_FROM).union(WatchFlags::MOVED_TO);

/// What may change the bytes of a file as well.
const WRITING: WatchFlags = WatchFlags::MODIFY.union(WatchFlags::CLOSE_WRITE);

/// Watches the files of a policy set, or a file alone.
pub struct Notices {
    path: PathBuf,
    places_of: fn(&Path) -> Places,
    inotify: AsyncFd<OwnedFd>,
    places: Places,
    /// The watches of the directories, and which directory is which.
    watches: BTreeMap<PathBuf, i32>,
    watched: BTreeMap<i32, PathBuf>,
    /// What is known since something was put in its place in one step, and when that was.
    moved: Option<(Known, Changed)>,
    /// How many events have been read, for whatever they told.
    #[cfg(test)]
    pub(super) heard: usize,
}

impl Notices {
    /// Of the policy set in a folder. Watches nothing yet.
    ///
    /// # Errors
    /// If there are too many watchers.
    pub(super) fn of(directory: &Path) -> io::Result<Notices> {
        Notices::new(directory, Places::of)
    }

    /// Of a file. Watches nothing yet.
    ///
    /// # Errors
    /// If there are too many watchers.
    pub fn of_file(file: &Path) -> io::Result<Notices> {
        Notices::new(file, Places::of_file)
    }

    fn new(path: &Path, places_of: fn(&Path) -> Places) -> io::Result<Notices> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "what replaces it is unsafe, since not every descriptor is owned; this one is"
        )]
        let inotify = AsyncFd::new(inotify)?;
        Ok(Notices {
            path: path.to_owned(),
            places_of,
            inotify,
            places: Places::default(),
            watches: BTreeMap::new(),
            watched: BTreeMap::new(),
            moved: None,
            #[cfg(test)]
            heard: 0,
        })
    }

    /// Watches every directory that leads to the files by now, and none that no longer does. Blocks.
    ///
    /// # Errors
    /// If something cannot be watched that is there.
    pub fn renew(&mut self) -> io::Result<()> {
        // Again until nothing has moved meanwhile: what is watched is then what is read.
        loop {
            self.places = (self.places_of)(&self.path);
            let mut before = std::mem::take(&mut self.watches);
            for (directory, place) in &self.places.directories {
                let writing = if place.has_files { WRITING } else { WatchFlags::empty() };
                match inotify::add_watch(&self.inotify, directory, LEADING | WatchFlags::ONLYDIR | writing) {
                    Ok(watch) => {
                        self.watches.insert(directory.clone(), watch);
                        self.watched.insert(watch, directory.clone());
                    }
                    // It is not there yet, or no more; what it would be in is watched as well.
                    Err(Errno::NOENT | Errno::NOTDIR) => {}
                    Err(error) => {
                        self.watches.append(&mut before);
                        return Err(error.into());
                    }
                }
            }
            for watch in before.into_values() {
                if !self.watches.values().any(|kept| *kept == watch) {
                    self.watched.remove(&watch);
                    // It may have ended by itself, with its directory.
                    let _ = inotify::remove_watch(&self.inotify, watch);
                }
            }
            if (self.places_of)(&self.path) == self.places {
                break;
            }
        }
        Ok(())
    }

    /// What is known of the files from how they came to be as they are. Blocks.
    pub fn known(&self) -> Known {
        // What came in one step was not watched at first, and not everything is told: so the times are compared as well.
        self.moved.map_or(Known::Nothing, |(known, moved)| self.places.still(known, moved))
    }

    /// Waits until something has happened that concerns the files.
    pub(super) async fn next(&mut self) {
        loop {
            if self.take() {
                return;
            }
            match self.inotify.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                // The runtime ends.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Reads what has happened. Whether something of it concerns the files.
    pub fn take(&mut self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let (mut told, mut concerned) = (Vec::new(), false);
        let mut events = Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = events.next() {
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
            told.push((event.wd(), event.events(), name));
        }
        for (watch, what, name) in told {
            #[cfg(test)]
            {
                self.heard += 1;
            }
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                (self.moved, concerned) = (None, true);
                continue;
            }
            let Some(directory) = self.watched.get(&watch) else { continue };
            let Some(name) = name else { continue };
            if self.places.concern(directory, &name) {
                let path = directory.join(name);
                self.note(&path, what);
                concerned = true;
            }
        }
        concerned
    }

    fn note(&mut self, path: &Path, what: ReadFlags) {
        // Every byte before it was told of as a modification, or shows in the time. It may come late for a file that was
        // moved in: a process that began while the file was written has it open, too, until it is another program.
        if what.contains(ReadFlags::CLOSE_WRITE) {
            return;
        }
        let found = fs::symlink_metadata(path).ok();
        // A link is made in one step; a file or a directory is made and then filled.
        let link = what.contains(ReadFlags::CREATE) && found.as_ref().is_some_and(fs::Metadata::is_symlink);
        let in_one_step = link || what.contains(ReadFlags::MOVED_TO);
        if !in_one_step && self.moved.is_none() {
            return;
        }
        // Where the path led before a link was changed tells nothing of where it leads now: what was there is removed.
        let places = (self.places_of)(&self.path);
        let came_with = places.came_with(path);
        let matters = path.parent().zip(path.file_name()).is_some_and(|(at, name)| places.concern(at, name));
        self.moved = match (came_with, self.moved) {
            (_, moved) if !matters => moved,
            // A schema or a module: the text is what it was.
            (Known::Nothing, moved) => moved.map(|(known, at)| (known.min(Known::Text), at)),
            (known, _) => found.filter(|_| in_one_step).map(|found| (known, Changed::of(&found))),
        };
        // What is told next, such as that a link was ahead of what it leads to, concerns where the path leads by now: times
        // are too coarse to tell.
        self.places = places;
    }
}
