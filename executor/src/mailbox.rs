//! A mailbox: any thread puts something in, one thread takes it out. The tasks of a local set (`task/local.rs`) come
//! home through it, and the drop of a set waits at it.
//!
//! 1. Only the owner registers hosts and takes out. Whoever puts something in does not know whether anybody waits.
//! 2. [`Mailbox::register`] registers the host, then takes out; [`Mailbox::put`] puts in, then wakes every host that is
//!    registered, once. Of the two that are done under the lock one comes first: either what was put in is taken out,
//!    or it wakes the host. Nothing lies in the box while its hosts sleep.
//! 3. A host that was woken is not registered any more. Hosts are known by a key, so that one which registers at each
//!    of its polls is there once, whatever waker it has then.
//! 4. No lock is held while a host's waker is cloned, woken or dropped: it is the user's. One that panics keeps no
//!    other host from being woken.

use std::task::Waker;

use crate::sys::{Inbox, Mutex, rank};
use crate::task::swallow;

/// See the head of the file.
pub(crate) struct Mailbox<T> {
    items: Inbox<T>,
    hosts: Mutex<Hosts>,
}

/// Who is to be woken. Mostly it is one.
#[derive(Default)]
struct Hosts {
    one: Option<(u64, Waker)>,
    /// Empty if there is not even one.
    more: Vec<(u64, Waker)>,
}

impl Hosts {
    fn of(&self, key: u64) -> Option<&Waker> {
        self.one.iter().chain(&self.more).find(|host| host.0 == key).map(|host| &host.1)
    }

    /// Gives the former waker of this host, to be dropped elsewhere.
    fn insert(&mut self, key: u64, waker: Waker) -> Option<Waker> {
        if let Some(host) = self.one.iter_mut().chain(&mut self.more).find(|host| host.0 == key) {
            return Some(std::mem::replace(&mut host.1, waker));
        }
        match self.one {
            None => self.one = Some((key, waker)),
            Some(_) => self.more.push((key, waker)),
        }
        None
    }

    fn remove(&mut self, key: u64) -> Option<Waker> {
        if self.one.as_ref().is_some_and(|host| host.0 == key) {
            let next = self.more.pop();
            return std::mem::replace(&mut self.one, next).map(|host| host.1);
        }
        let at = self.more.iter().position(|host| host.0 == key)?;
        Some(self.more.swap_remove(at).1)
    }

    /// Gives each waker to `f`, and swallows what it throws.
    fn each(self, f: impl Fn(Waker)) {
        self.one.into_iter().chain(self.more).for_each(|host| swallow(|| f(host.1)));
    }
}

impl<T> Mailbox<T> {
    pub(crate) fn new() -> Self {
        Mailbox { items: Inbox::new(), hosts: Mutex::new(rank::LEAF, Hosts::default()) }
    }

    /// Puts `item` in and wakes the hosts.
    pub(crate) fn put(&self, item: T) {
        self.items.push(item);
        self.call();
    }

    /// Wakes the hosts.
    pub(crate) fn call(&self) {
        let hosts = std::mem::take(&mut *self.hosts.lock());
        hosts.each(Waker::wake);
    }

    /// Registers the host `key`, then gives what was put in to `take`, oldest first. Owner only.
    pub(crate) fn register(&self, key: u64, waker: &Waker, take: impl FnMut(T)) {
        let is_registered = self.hosts.lock().of(key).is_some_and(|registered| registered.will_wake(waker));
        if !is_registered {
            let waker = waker.clone();
            let former = self.hosts.lock().insert(key, waker);
            swallow(|| drop(former));
        }
        // As many as there are now: what comes later has woken the host again.
        std::iter::from_fn(|| self.items.pop()).take(self.items.len()).for_each(take);
    }

    /// The host `key` waits no more.
    pub(crate) fn unregister(&self, key: u64) {
        let waker = self.hosts.lock().remove(key);
        swallow(|| drop(waker));
    }

    /// Nobody waits any more.
    pub(crate) fn unregister_all(&self) {
        let hosts = std::mem::take(&mut *self.hosts.lock());
        hosts.each(drop);
    }
}

#[cfg(all(test, gmp_loom))]
mod loom;
#[cfg(all(test, not(gmp_loom)))]
mod tests;
