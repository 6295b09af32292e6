# fish completion for wgd-server, made by packaging/completion/generate.py from the program's own parser
complete -c wgd-server -f
complete -c wgd-server -n __fish_use_subcommand -l help -d 'show help'
complete -c wgd-server -n __fish_use_subcommand -l version -d 'show the version'
complete -c wgd-server -n __fish_use_subcommand -a run -d 'run the gateway in the foreground'
complete -c wgd-server -n '__fish_seen_subcommand_from run' -l help -d 'show this help message and exit'
complete -c wgd-server -n '__fish_seen_subcommand_from run' -l config -d 'config file' -r -F
complete -c wgd-server -n '__fish_seen_subcommand_from run' -l leave-up -d 'leave interface, rules and routes standing at the end, for the next run to go on with'
complete -c wgd-server -n __fish_use_subcommand -a check -d 'check the config and its policy tests, and print every problem'
complete -c wgd-server -n '__fish_seen_subcommand_from check' -l help -d 'show this help message and exit'
complete -c wgd-server -n '__fish_seen_subcommand_from check' -l config -d 'config file' -r -F
complete -c wgd-server -n __fish_use_subcommand -a down -d 'take down what a `run --leave-up` has left standing'
complete -c wgd-server -n '__fish_seen_subcommand_from down' -l help -d 'show this help message and exit'
complete -c wgd-server -n '__fish_seen_subcommand_from down' -l config -d 'config file' -r -F
complete -c wgd-server -n __fish_use_subcommand -a events -d 'show the event log'
complete -c wgd-server -n '__fish_seen_subcommand_from events' -l help -d 'show this help message and exit'
complete -c wgd-server -n '__fish_seen_subcommand_from events' -l config -d 'config file' -r -F
complete -c wgd-server -n '__fish_seen_subcommand_from events' -s f -l follow -d 'go on with the lines that come, over rotations'
complete -c wgd-server -n '__fish_seen_subcommand_from events' -s n -l lines -d 'the last N lines of those wanted, 10 without N, or all' -x
complete -c wgd-server -n '__fish_seen_subcommand_from events' -l client -d 'only of this client, by name or public key' -x
complete -c wgd-server -n '__fish_seen_subcommand_from events' -l to -d 'only to this address or network, IPv4 or IPv6' -x
complete -c wgd-server -n '__fish_seen_subcommand_from events' -l port -d 'only to this port, or range of ports such as 8000-8999' -x
complete -c wgd-server -n '__fish_seen_subcommand_from events' -l event -d 'only events of this kind' -x -a 'open close deny packet started stopped reloaded drift lost'
complete -c wgd-server -n '__fish_seen_subcommand_from events' -l verdict -d 'only events with this verdict' -x -a 'allow deny would_deny'
complete -c wgd-server -n '__fish_seen_subcommand_from events' -l since -d 'only from this time on' -x
complete -c wgd-server -n '__fish_seen_subcommand_from events' -l until -d 'only up to this time' -x
complete -c wgd-server -n '__fish_seen_subcommand_from events' -l json -d 'print the lines as they stand in the log'
complete -c wgd-server -n '__fish_seen_subcommand_from events' -l utc -d 'print times in UTC, not in the host\'s time zone'
complete -c wgd-server -n '__fish_seen_subcommand_from events' -l log -d 'the log to read, with what it was rotated to, or - for standard input' -r -F
complete -c wgd-server -n __fish_use_subcommand -a status -d 'show interface, peers, policy, counters, losses and drift'
complete -c wgd-server -n '__fish_seen_subcommand_from status' -l help -d 'show this help message and exit'
complete -c wgd-server -n '__fish_seen_subcommand_from status' -l socket -d 'the daemon\'s control socket' -r -F
complete -c wgd-server -n '__fish_seen_subcommand_from status' -l json -d 'print it as JSON'
complete -c wgd-server -n __fish_use_subcommand -a plan -d 'show what a reload would change, and change nothing'
complete -c wgd-server -n '__fish_seen_subcommand_from plan' -l help -d 'show this help message and exit'
complete -c wgd-server -n '__fish_seen_subcommand_from plan' -l socket -d 'the daemon\'s control socket' -r -F
complete -c wgd-server -n __fish_use_subcommand -a reload -d 'reload the config'
complete -c wgd-server -n '__fish_seen_subcommand_from reload' -l help -d 'show this help message and exit'
complete -c wgd-server -n '__fish_seen_subcommand_from reload' -l socket -d 'the daemon\'s control socket' -r -F
complete -c wgd-server -n '__fish_seen_subcommand_from reload' -l confirm -d 'go back by itself unless `wgd-server confirm` is called in time' -x
complete -c wgd-server -n __fish_use_subcommand -a confirm -d 'keep the config of `reload --confirm`'
complete -c wgd-server -n '__fish_seen_subcommand_from confirm' -l help -d 'show this help message and exit'
complete -c wgd-server -n '__fish_seen_subcommand_from confirm' -l socket -d 'the daemon\'s control socket' -r -F
complete -c wgd-server -n __fish_use_subcommand -a explain -d 'tell whether a client may reach something, by the config and by what the kernel holds, and by which rule'
complete -c wgd-server -n '__fish_seen_subcommand_from explain' -l help -d 'show this help message and exit'
complete -c wgd-server -n '__fish_seen_subcommand_from explain' -l socket -d 'the daemon\'s control socket' -r -F
complete -c wgd-server -n '__fish_seen_subcommand_from explain' -l json -d 'print it as JSON'
complete -c wgd-server -n '__fish_seen_subcommand_from explain' -l from -d 'who begins it, towards CLIENT' -x
complete -c wgd-server -n '__fish_seen_subcommand_from explain' -l proto -d 'protocol, by name or number' -x
complete -c wgd-server -n '__fish_seen_subcommand_from explain' -l port -d 'destination port' -x
