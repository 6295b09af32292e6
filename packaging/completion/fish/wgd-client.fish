# fish completion for wgd-client, made by packaging/completion/generate.py from the program's own parser
complete -c wgd-client -f
complete -c wgd-client -n __fish_use_subcommand -l help -d 'show help'
complete -c wgd-client -n __fish_use_subcommand -l version -d 'show the version'
complete -c wgd-client -n __fish_use_subcommand -a run -d 'run a connection in the foreground'
complete -c wgd-client -n '__fish_seen_subcommand_from run' -l help -d 'show this help message and exit'
complete -c wgd-client -n '__fish_seen_subcommand_from run' -l config -d 'config file' -r -F
complete -c wgd-client -n '__fish_seen_subcommand_from run' -l leave-up -d 'leave interface, rules and routes standing at the end, for the next run to go on with'
complete -c wgd-client -n '__fish_seen_subcommand_from run' -x -a "(string replace -r '.*/(.*)\.yaml' '\$1' /etc/wgd/client/*.yaml)"
complete -c wgd-client -n __fish_use_subcommand -a check -d 'check the config of a connection and print every problem'
complete -c wgd-client -n '__fish_seen_subcommand_from check' -l help -d 'show this help message and exit'
complete -c wgd-client -n '__fish_seen_subcommand_from check' -l config -d 'config file' -r -F
complete -c wgd-client -n '__fish_seen_subcommand_from check' -x -a "(string replace -r '.*/(.*)\.yaml' '\$1' /etc/wgd/client/*.yaml)"
complete -c wgd-client -n __fish_use_subcommand -a reload -d 'reload the config'
complete -c wgd-client -n '__fish_seen_subcommand_from reload' -l help -d 'show this help message and exit'
complete -c wgd-client -n '__fish_seen_subcommand_from reload' -x -a "(string replace -r '.*/(.*)\.yaml' '\$1' /etc/wgd/client/*.yaml)"
complete -c wgd-client -n __fish_use_subcommand -a down -d 'take down what a `run --leave-up` has left standing'
complete -c wgd-client -n '__fish_seen_subcommand_from down' -l help -d 'show this help message and exit'
complete -c wgd-client -n '__fish_seen_subcommand_from down' -x -a "(string replace -r '.*/(.*)\.yaml' '\$1' /etc/wgd/client/*.yaml)"
complete -c wgd-client -n __fish_use_subcommand -a status -d 'show interface, gateway, handshake and traffic'
complete -c wgd-client -n '__fish_seen_subcommand_from status' -l help -d 'show this help message and exit'
complete -c wgd-client -n '__fish_seen_subcommand_from status' -l json -d 'print it as JSON'
complete -c wgd-client -n '__fish_seen_subcommand_from status' -x -a "(string replace -r '.*/(.*)\.yaml' '\$1' /etc/wgd/client/*.yaml)"
