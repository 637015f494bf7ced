# $1: the command that quiesces, $2: the one that resumes, $3: seconds that it may take.
# Holds until standard input ends, or until the time is over: whatever becomes of the
# one who asked, the application goes on. Ends with 71 if it could not be quiesced, with
# 72 if it could not be resumed, with 73 if the time was over before.
late=
trap 'late=1' ALRM
trap '' HUP PIPE
exec 3<&0
(sleep "$3"; kill -ALRM $$) </dev/null >/dev/null 2>&1 3<&- &
timer=$!
sh -c "$1" </dev/null >&2 3<&- &
child=$!
wait "$child"
quiesced=$?
if [ -z "$late" ] && [ "$quiesced" -eq 0 ]; then
  echo quiesced
  cat <&3 >/dev/null 2>&1 &
  child=$!
  wait "$child"
fi
kill "$child" "$timer" 2>/dev/null
sh -c "$2" </dev/null >&2 3<&- || exit 72
[ -z "$late" ] || exit 73
[ "$quiesced" -eq 0 ] || exit 71
