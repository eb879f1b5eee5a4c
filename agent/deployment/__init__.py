"""What an installation needs beside the program: units, man pages and completions.

They are made from the tables that the program works by. Nothing here is loaded by a running agent. `systemd`
is a link to the folder of that name at the top of the repository: so the wheel has the units and the samples.

    completion  flags  manual  units
"""
