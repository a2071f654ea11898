//! What can be bound and connected to. Numeric addresses never leave the thread; a name is looked up elsewhere.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Deref;

use crate::lookup::Lookup;

/// An address, or a name that stands for some.
///
/// Implemented for `SocketAddr` and its two forms, `(IpAddr, u16)` and its two forms, slices of `SocketAddr`, strings
/// `"host:port"`, and pairs `("host", port)`. A numeric address costs nothing; a name is looked up as a blocking
/// closure (`spawn_blocking`), so that no processor waits for it. It cannot be implemented elsewhere.
pub trait ToSocketAddrs: sealed::Sealed {}

pub(crate) mod sealed {
    /// Keeps `ToSocketAddrs` to this crate: what it gives may change.
    pub trait Sealed {
        /// What it stands for; a name's lookup begins with this.
        fn addrs(&self) -> std::io::Result<super::Addrs>;
    }
}

/// The addresses, or the lookup that will give them.
#[derive(Debug)]
pub struct Addrs(Inner);

#[derive(Debug)]
enum Inner {
    One(SocketAddr),
    Many(Vec<SocketAddr>),
    Asked(Lookup),
}

impl Addrs {
    fn one(addr: impl Into<SocketAddr>) -> io::Result<Addrs> {
        Ok(Addrs(Inner::One(addr.into())))
    }

    fn host(host: &str, port: u16) -> io::Result<Addrs> {
        match host.parse::<IpAddr>() {
            Ok(ip) => Addrs::one((ip, port)),
            Err(_) => Ok(Addrs(Inner::Asked(Lookup::start(host.to_owned(), port)?))),
        }
    }

    async fn get(self) -> io::Result<Found> {
        match self.0 {
            Inner::One(addr) => Ok(Found::One(addr)),
            Inner::Many(addrs) => Ok(Found::Many(addrs)),
            Inner::Asked(lookup) => lookup.await.map(Found::Many),
        }
    }
}

/// The addresses. A datagram to a single one allocates nothing.
pub(crate) enum Found {
    One(SocketAddr),
    Many(Vec<SocketAddr>),
}

impl Deref for Found {
    type Target = [SocketAddr];

    fn deref(&self) -> &[SocketAddr] {
        match self {
            Found::One(addr) => std::slice::from_ref(addr),
            Found::Many(addrs) => addrs,
        }
    }
}

/// All addresses of `addr`, none being an error.
pub(crate) async fn addrs_of(addr: impl ToSocketAddrs) -> io::Result<Found> {
    let addrs = addr.addrs()?;
    drop(addr);
    let addrs = addrs.get().await?;
    if addrs.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no address to use"));
    }
    Ok(addrs)
}

/// Looks a host name up. A numeric address comes back as it is.
///
/// # Errors
///
/// What the system's resolver gives, or that there is no runtime to run it.
///
/// # Cancel safety
///
/// Strict: dropping it loses nothing; call again.
///
/// ```
/// # gmp::block_on(async {
/// let mut addrs = gmp::net::lookup_host(("127.0.0.1", 80)).await?;
/// assert_eq!(addrs.next(), Some(([127, 0, 0, 1], 80).into()));
/// # Ok::<(), std::io::Error>(())
/// # }).unwrap();
/// ```
pub async fn lookup_host(host: impl ToSocketAddrs) -> io::Result<impl Iterator<Item = SocketAddr>> {
    let addrs = host.addrs()?;
    drop(host);
    let (one, many) = match addrs.get().await? {
        Found::One(addr) => (Some(addr), Vec::new()),
        Found::Many(addrs) => (None, addrs),
    };
    Ok(one.into_iter().chain(many))
}

macro_rules! numeric {
    ($($type:ty),*) => { $(
        impl ToSocketAddrs for $type {}
        impl sealed::Sealed for $type {
            fn addrs(&self) -> io::Result<Addrs> {
                Addrs::one(*self)
            }
        }
    )* };
}

numeric!(SocketAddr, SocketAddrV4, SocketAddrV6, (IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16));

impl ToSocketAddrs for [SocketAddr] {}
impl sealed::Sealed for [SocketAddr] {
    fn addrs(&self) -> io::Result<Addrs> {
        Ok(Addrs(Inner::Many(self.to_vec())))
    }
}

impl ToSocketAddrs for (&str, u16) {}
impl sealed::Sealed for (&str, u16) {
    fn addrs(&self) -> io::Result<Addrs> {
        Addrs::host(self.0, self.1)
    }
}

impl ToSocketAddrs for (String, u16) {}
impl sealed::Sealed for (String, u16) {
    fn addrs(&self) -> io::Result<Addrs> {
        Addrs::host(&self.0, self.1)
    }
}

impl ToSocketAddrs for str {}
impl sealed::Sealed for str {
    fn addrs(&self) -> io::Result<Addrs> {
        if let Ok(addr) = self.parse::<SocketAddr>() {
            return Addrs::one(addr);
        }
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, format!("{what} in address {self:?}"));
        let (host, port) = self.rsplit_once(':').ok_or_else(|| invalid("no port"))?;
        let port = port.parse().map_err(|_| invalid("no valid port"))?;
        Addrs::host(host, port)
    }
}

impl ToSocketAddrs for String {}
impl sealed::Sealed for String {
    fn addrs(&self) -> io::Result<Addrs> {
        self.as_str().addrs()
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {}
impl<T: ToSocketAddrs + ?Sized> sealed::Sealed for &T {
    fn addrs(&self) -> io::Result<Addrs> {
        (**self).addrs()
    }
}
