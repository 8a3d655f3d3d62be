#!/bin/sh
# catena-runc: an OCI runtime that asks the gate before it starts anything.
#
# It stands where runc is expected and hands every call on to the real runtime. What can start a
# process (create, run, exec, restore) goes through the gate first, in lean Python; `delete` tells
# it. What cannot start one goes straight on. Whatever is not known is refused, and so is `--criu`,
# which names a program to run.
set -u
runtime='@RUNTIME@'
python='@PYTHON@'
gate='@GATE@'
start='import sys; sys.path[:] = ["@FOLDER@"]; import client; sys.exit(client.main(*sys.argv[1:]))'

refuse() {
    printf 'catena-runc: %s [unknown-command]\n' "$1" >&2
    exit 1
}

log='' format=text wanted='' position=0
for word do
    position=$((position + 1))
    case $wanted in
        '') ;;
        log) log=$word wanted='' && continue ;;
        format) format=$word wanted='' && continue ;;
        *) wanted='' && continue ;;
    esac
    case $word in
        --log) wanted=log ;;
        --log=*) log=${word#*=} ;;
        --log-format) wanted=format ;;
        --log-format=*) format=${word#*=} ;;
        --root | --rootless) wanted=value ;;
        --root=* | --rootless=* | --debug | --systemd-cgroup) ;;
        create | run | exec | restore | delete)
            # LC_CTYPE is told because Python may set it, and the real runtime must not notice.
            exec "$python" -ISBc "$start" "$gate" "$runtime" "$word" "$log" "$format" \
                "${LC_CTYPE+=$LC_CTYPE}" "$@"
            ;;
        checkpoint | events | features | help | kill | list | pause | ps | resume | spec | start | state | update)
            exec "$runtime" "$@"
            ;;
        --version | -v | --help | -h)
            [ "$position" -eq $# ] || refuse "$word must stand alone"
            exec "$runtime" "$@"
            ;;
        *) refuse 'unknown global option or command' ;;
    esac
done
[ -z "$wanted" ] || refuse 'an option lacks its value'
exec "$runtime" "$@"
