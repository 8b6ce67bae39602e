# A machine with systemd, PostgreSQL and cron, onto which deploy/systemd is installed as docs/OPERATIONS.md says.
FROM payonce-test/postgres
USER root
RUN apt-get update \
    && apt-get install -y --no-install-recommends systemd cron dbus openssl curl ca-certificates procps \
    && rm -rf /var/lib/apt/lists/* \
    && systemctl mask systemd-firstboot.service systemd-udevd.service getty.target console-getty.service
STOPSIGNAL SIGRTMIN+3
ENV PATH=/usr/lib/postgresql/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ENTRYPOINT []
CMD ["/lib/systemd/systemd", "--show-status=no"]
