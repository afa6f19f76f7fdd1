//! Postgres refuses to run as root. When we are root, this module finds the user that runs it
//! instead, gives that user the files and checks that it can reach them. It does not know which
//! files they are.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::error::During;
use crate::{Error, Result};

#[derive(Debug, Clone)]
pub(crate) struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// The unprivileged user to run Postgres as. `None`: we are not root and run it as ourselves.
pub(crate) fn find_unprivileged() -> Result<Option<User>> {
    if !is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").during(|| "read /etc/passwd".into())?;
    let user = ["postgres", "nobody"].iter().find_map(|name| parse_passwd(&passwd, name));
    user.map(Some).ok_or(Error::NoUser)
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn parse_passwd(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(User { name: name.into(), uid, gid })
    })
}

impl User {
    pub(crate) fn give_ownership(&self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .during(|| format!("give {} to the user {}", path.display(), self.name))
    }

    /// Every directory above `path` must let this user through.
    pub(crate) fn check_reach(&self, path: &Path) -> Result<()> {
        let path = fs::canonicalize(path).during(|| format!("open {}", path.display()))?;
        match path.ancestors().skip(1).find(|dir| !self.may_enter(dir)) {
            None => Ok(()),
            Some(dir) => Err(Error::Untraversable { path: dir.into(), user: self.name.clone() }),
        }
    }

    fn may_enter(&self, dir: &Path) -> bool {
        fs::metadata(dir).is_ok_and(|meta| {
            let mode = meta.permissions().mode();
            if meta.uid() == self.uid {
                mode & 0o100 != 0
            } else if meta.gid() == self.gid {
                mode & 0o010 != 0
            } else {
                mode & 0o001 != 0
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwd_lines_are_matched_by_whole_names() {
        let passwd =
            "postgresql:x:1:2::/:/bin/sh\npostgres:x:101:104::/var/lib/postgresql:/bin/bash\n";
        let user = parse_passwd(passwd, "postgres").unwrap();
        assert_eq!((user.uid, user.gid), (101, 104));
        assert!(parse_passwd(passwd, "nobody").is_none());
    }
}
