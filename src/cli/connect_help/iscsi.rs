//! iSCSI: open-iscsi on Linux, esxcli on ESXi, PowerShell on Windows, QEMU.
//!
//! Secrets are placeholders: nobody can ask a node for them.

use std::net::SocketAddr;

use ashlar_cluster::api::{ChapMode, HostView, TargetView};

use super::{Step, System, quoted};

/// Stands for the secret that the host has to know.
const HOST_SECRET: &str = "HOST-SECRET";
/// Stands for the secret that the target has to know.
const TARGET_SECRET: &str = "TARGET-SECRET";

/// What the commands are made of.
struct Login<'a> {
    iqn: &'a str,
    /// The host's name, or a placeholder where several may come.
    host: String,
    chap: ChapMode,
    lun: u32,
    addresses: &'a [SocketAddr],
}

/// What to type on each system that can reach one of `addresses`. `hosts` are those that the target lists.
pub(super) fn systems(target: &TargetView, addresses: &[SocketAddr], hosts: &[HostView]) -> Vec<System> {
    let names: Vec<&String> = hosts.iter().filter_map(|host| host.iqn.as_ref()).collect();
    let modes = hosts.iter().map(|host| host.chap);
    let login = Login {
        iqn: &quoted(&target.iqn),
        host: if let [only] = names[..] { quoted(only) } else { "HOST-IQN".to_owned() },
        chap: if target.any_host { ChapMode::None } else { strictest(modes) },
        lun: target.namespaces.first().map_or(1, |namespace| namespace.nsid),
        addresses,
    };
    let remote: Vec<_> = addresses.iter().filter(|address| !address.ip().is_loopback()).copied().collect();
    let mut systems = vec![System::new("linux", "Linux over iSCSI, as root, with open-iscsi", login.linux())];
    if !remote.is_empty() {
        let login = Login { addresses: &remote, host: login.host.clone(), ..login };
        systems.push(System::new("esxi", "VMware ESXi over iSCSI", login.esxi()));
        let heading = "Windows over iSCSI, in PowerShell as administrator";
        systems.push(System::new("windows", heading, login.windows()));
    }
    systems.push(System::new("qemu", "QEMU and libiscsi, without a disk on the host", login.qemu()));
    systems
}

fn strictest(modes: impl Iterator<Item = ChapMode>) -> ChapMode {
    modes.max_by_key(|mode| *mode as u8).unwrap_or_default()
}

const CHAP: &str = "CHAP, with the secrets that `ashlar host add` or `ashlar host rotate` showed";

impl Login<'_> {
    fn linux(&self) -> Vec<Step> {
        let iqn = self.iqn;
        let update =
            |key: &str, value: &str| format!("iscsiadm -m node -T {iqn} -o update -n {key} -v {value}");
        let mut steps = vec![Step::new("once", ["systemctl enable --now iscsid"])];
        let discover =
            self.addresses.first().map(|at| format!("iscsiadm -m discovery -t sendtargets -p {at}"));
        steps.push(Step::new("what this node offers to this host", discover));
        if self.chap != ChapMode::None {
            let mut commands = vec![
                update("node.session.auth.authmethod", "CHAP"),
                update("node.session.auth.username", &self.host),
                update("node.session.auth.password", &format!("'{HOST_SECRET}'")),
            ];
            if self.chap == ChapMode::Mutual {
                commands.push(update("node.session.auth.username_in", iqn));
                commands.push(update("node.session.auth.password_in", &format!("'{TARGET_SECRET}'")));
            }
            steps.push(Step { what: CHAP, commands });
        }
        steps.push(Step::new(
            if self.addresses.len() > 1 { "log in, one path per address" } else { "log in" },
            [format!("iscsiadm -m node -T {iqn} --login")],
        ));
        steps.push(Step::new("and at every start of this host", [update("node.startup", "automatic")]));
        if self.addresses.len() > 1 {
            let commands = ["systemctl enable --now multipathd", "multipath -ll"];
            steps.push(Step::new("one disk of the paths, with multipath-tools", commands));
        }
        steps.push(Step::new(
            "look, and log out",
            ["iscsiadm -m session -P 3".to_owned(), format!("iscsiadm -m node -T {iqn} --logout")],
        ));
        steps
    }

    fn esxi(&self) -> Vec<Step> {
        let mut steps = vec![
            Step::new("once: the software adapter", ["esxcli iscsi software set --enabled=true"]),
            Step::new("its name (yours for vmhba64 below)", ["esxcli iscsi adapter list"]),
        ];
        let chap = |direction: &str, name: &str, secret: &str| {
            format!(
                "esxcli iscsi adapter auth chap set --adapter=vmhba64 --direction={direction} --level=required \
                 --authname={name} --secret='{secret}'"
            )
        };
        if self.chap != ChapMode::None {
            let mut commands = vec![chap("uni", &self.host, HOST_SECRET)];
            if self.chap == ChapMode::Mutual {
                commands.push(chap("mutual", self.iqn, TARGET_SECRET));
            }
            steps.push(Step { what: CHAP, commands });
        }
        let add = |at: &SocketAddr| {
            format!("esxcli iscsi adapter discovery sendtarget add --adapter=vmhba64 --address={at}")
        };
        steps.push(Step::new("where to look for targets", self.addresses.iter().map(add)));
        steps.push(Step::new("log in", ["esxcli storage core adapter rescan --adapter=vmhba64"]));
        steps.push(Step::new(
            "look",
            ["esxcli iscsi session list --adapter=vmhba64", "esxcli storage core path list"],
        ));
        steps
    }

    fn windows(&self) -> Vec<Step> {
        let iqn = powershell(self.iqn);
        let at = |at: &SocketAddr| {
            format!("-TargetPortalAddress {} -TargetPortalPortNumber {}", at.ip(), at.port())
        };
        let mut steps =
            vec![Step::new("once", ["Set-Service MSiSCSI -StartupType Automatic", "Start-Service MSiSCSI"])];
        let several = self.addresses.len() > 1;
        if several {
            steps.push(Step::new(
                "once, for several paths; asks for a restart",
                ["Install-WindowsFeature Multipath-IO", "Enable-MSDSMAutomaticClaim -BusType iSCSI"],
            ));
        }
        if self.chap == ChapMode::Mutual {
            steps.push(Step::new(
                "mutual CHAP: the target's secret, which `ashlar host add` or `ashlar host rotate` showed",
                [format!("Set-IscsiChapSecret -ChapSecret '{TARGET_SECRET}'")],
            ));
        }
        let portal = |address: &SocketAddr| format!("New-IscsiTargetPortal {}", at(address));
        steps.push(Step::new("where to look for targets", self.addresses.iter().map(portal)));
        let multipath = if several { " -IsMultipathEnabled $true" } else { "" };
        let chap = match self.chap {
            ChapMode::None => String::new(),
            ChapMode::OneWay => self.windows_chap("ONEWAYCHAP"),
            ChapMode::Mutual => self.windows_chap("MUTUALCHAP"),
        };
        let connect = |address: &SocketAddr| {
            let at = at(address);
            format!("Connect-IscsiTarget -NodeAddress {iqn} {at} -IsPersistent $true{multipath}{chap}")
        };
        steps.push(Step::new("log in, now and at every start", self.addresses.iter().map(connect)));
        steps.push(Step::new("look", ["Get-IscsiSession", "Get-Disk | Where-Object BusType -eq iSCSI"]));
        steps
    }

    fn windows_chap(&self, kind: &str) -> String {
        let name = powershell(&self.host);
        format!(" -AuthenticationType {kind} -ChapUsername {name} -ChapSecret '{HOST_SECRET}'")
    }

    fn qemu(&self) -> Vec<Step> {
        let Login { iqn, host, lun, .. } = self;
        let Some(at) = self.addresses.first() else { return Vec::new() };
        let chap = self.chap != ChapMode::None;
        let (object, user) = if chap {
            let object = format!("-object secret,id=chap0,data='{HOST_SECRET}' ");
            (object, format!(",user={host},password-secret=chap0"))
        } else {
            (String::new(), String::new())
        };
        let url = if chap {
            format!("'iscsi://{host}%{HOST_SECRET}@{at}/{iqn}/{lun}'")
        } else {
            format!("iscsi://{at}/{iqn}/{lun}")
        };
        vec![
            Step::new(
                "a disk of a guest: add to the options of qemu-system",
                [format!(
                    "{object}-blockdev driver=iscsi,node-name=disk0,transport=tcp,portal={at},target={iqn},lun={lun},\
                     initiator-name={host}{user} -device virtio-blk-pci,drive=disk0"
                )],
            ),
            Step::new(
                "look, with libiscsi-bin",
                [format!("iscsi-ls -i {host} -s iscsi://{at}"), format!("iscsi-inq -i {host} {url}")],
            ),
        ]
    }
}

/// A word that a POSIX shell takes is one in PowerShell but for its quotes.
fn powershell(word: &str) -> String {
    match word.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        Some(inner) => format!("'{}'", inner.replace(r"'\''", "''")),
        None => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{help_with, host};
    use super::*;

    const ADDRESSES: [&str; 2] = ["10.0.0.11:3260", "[fd00::11]:3261"];

    fn text(hosts: &[HostView]) -> String {
        help_with(&[], &ADDRESSES, hosts).text()
    }

    #[test]
    fn every_system_gets_its_commands() {
        let text = text(&[]);
        for line in [
            "  iscsiadm -m discovery -t sendtargets -p 10.0.0.11:3260\n",
            "  iscsiadm -m node -T iqn.2026-11.io.ashlar:vm --login\n",
            "  esxcli iscsi adapter discovery sendtarget add --adapter=vmhba64 --address=[fd00::11]:3261\n",
            "  New-IscsiTargetPortal -TargetPortalAddress fd00::11 -TargetPortalPortNumber 3261\n",
            "  Connect-IscsiTarget -NodeAddress iqn.2026-11.io.ashlar:vm -TargetPortalAddress 10.0.0.11 \
             -TargetPortalPortNumber 3260 -IsPersistent $true -IsMultipathEnabled $true\n",
            "  -blockdev driver=iscsi,node-name=disk0,transport=tcp,portal=10.0.0.11:3260,\
             target=iqn.2026-11.io.ashlar:vm,lun=1,initiator-name=HOST-IQN -device virtio-blk-pci,drive=disk0\n",
            "  iscsi-inq -i HOST-IQN iscsi://10.0.0.11:3260/iqn.2026-11.io.ashlar:vm/1\n",
            "  multipath -ll\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(!text.contains("nvme connect") && !text.contains("SECRET"), "{text}");
    }

    #[test]
    fn chap_is_asked_for_as_the_hosts_have_it() {
        let one_way = text(&[host("a", ChapMode::OneWay)]);
        for part in [
            "node.session.auth.username -v iqn.2014-08.org.example:a\n",
            "node.session.auth.password -v 'HOST-SECRET'\n",
            "--direction=uni --level=required --authname=iqn.2014-08.org.example:a --secret='HOST-SECRET'\n",
            "-AuthenticationType ONEWAYCHAP -ChapUsername iqn.2014-08.org.example:a -ChapSecret 'HOST-SECRET'\n",
            ",user=iqn.2014-08.org.example:a,password-secret=chap0",
            "'iscsi://iqn.2014-08.org.example:a%HOST-SECRET@10.0.0.11:3260/iqn.2026-11.io.ashlar:vm/1'\n",
        ] {
            assert!(one_way.contains(part), "{part} in {one_way}");
        }
        assert!(!one_way.contains("TARGET-SECRET"), "{one_way}");
        let mutual = text(&[host("a", ChapMode::None), host("b", ChapMode::Mutual)]);
        for part in [
            "node.session.auth.username_in -v iqn.2026-11.io.ashlar:vm\n",
            "node.session.auth.password_in -v 'TARGET-SECRET'\n",
            "--direction=mutual --level=required --authname=iqn.2026-11.io.ashlar:vm --secret='TARGET-SECRET'\n",
            "Set-IscsiChapSecret -ChapSecret 'TARGET-SECRET'\n",
            "-AuthenticationType MUTUALCHAP -ChapUsername HOST-IQN",
        ] {
            assert!(mutual.contains(part), "{part} in {mutual}");
        }
    }

    #[test]
    fn words_are_quoted_as_powershell_reads_them() {
        assert_eq!(powershell("iqn.2026-11.io.ashlar:vm"), "iqn.2026-11.io.ashlar:vm");
        assert_eq!(powershell(&quoted("a$(x)'b")), "'a$(x)''b'");
    }
}
