//! PostgreSQL under load while a machine changes: what was committed stays committed.

use kld_vm::Guest;

use crate::fixture::BOOT;

/// pgbench(1), started again whenever the server goes away, until it is stopped.
pub(crate) struct Load<'a> {
    guest: &'a Guest,
}

impl<'a> Load<'a> {
    /// Begins. Few transactions a second: the machine is emulated, and the changes are what is tested.
    pub(crate) fn start(guest: &'a Guest) -> Self {
        let script = "set -e; install -d -o postgres /run/load; cd /run/load; \
             runuser -u postgres -- createdb load; runuser -u postgres -- pgbench -q -i load 2>/dev/null; \
             systemd-run --quiet --unit=the-load --uid=postgres --working-directory=/run/load bash -c \
             'while [ ! -e stop ]; do pgbench -n -c 2 -R 4 -T 5 --log --log-prefix=/run/load/done load; sleep 0.2; done'";
        let started = guest.run_for(script, BOOT).expect("it answers");
        assert!(started.is_ok(), "{}", started.error_text());
        Load { guest }
    }

    /// Ends, and holds what clients were told against what the database has.
    pub(crate) fn assert_nothing_is_lost(self) {
        let script = "cd /run/load; : > stop; while systemctl is-active -q the-load; do sleep 0.5; done; \
             cat done.* | wc -l; ls | grep -c ^done; \
             runuser -u postgres -- psql -XAtq load -c \"SELECT count(*) FROM pgbench_history\" \
             -c \"SELECT count(DISTINCT sum) FROM (SELECT sum(abalance) FROM pgbench_accounts UNION ALL SELECT sum(bbalance) \
             FROM pgbench_branches UNION ALL SELECT sum(tbalance) FROM pgbench_tellers UNION ALL SELECT sum(delta) FROM pgbench_history) s\"; \
             runuser -u postgres -- dropdb load";
        let said = self.guest.run_for(script, BOOT).expect("it answers").text();
        let numbers: Vec<u64> = said.lines().filter_map(|line| line.trim().parse().ok()).collect();
        let [told, runs, kept, sums] = numbers[..] else { panic!("{said}") };
        assert!(told > 50 && runs > 2, "there was load: {said}");
        assert!(kept >= told, "{told} transactions were confirmed, and {kept} are there");
        assert_eq!(sums, 1, "accounts, branches, tellers and history agree");
    }
}
