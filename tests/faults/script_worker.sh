# A worker that plays a script: the "source" of its order. A line is an event, or a word:
#   !die   kill itself        !die-until N   kill itself in attempts before N        !rest S   sleep
# Beside the script it records its attempts in SCRIPT.ran, and that it was not alone in SCRIPT.twice.
IFS= read -r order
script=${order#*\"vmdk\":[\"} script=${script%%\"*}
attempt=${order#*\"attempt\":} attempt=${attempt%%[,\}]*}
exec 9>>"$script.ran"
flock --nonblock 9 || echo "$attempt" >>"$script.twice"
echo "$attempt" >&9
while IFS=' ' read -r word rest; do
    case $word in
    '!die') kill -KILL $$ ;;
    '!die-until') [ "$attempt" -ge "$rest" ] || kill -KILL $$ ;;
    '!rest') sleep "$rest" 9>&- ;;
    *) printf '%s %s\n' "$word" "$rest" ;;
    esac
done <"$script"
