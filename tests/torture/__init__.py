"""Campaigns against a real daemon: nemeses do harm, the jobs keep books of their own, and a judge compares.

`python -m tests.torture --seconds 3600 --seed 7 --pairs` runs rounds and prints what came of each nemesis; `… soak` runs a
steady load and tells of descriptors, threads and memory; `… mutants` shows that the judge sees what it is to see.

| file       | is                                                                        |
|------------|---------------------------------------------------------------------------|
| mark.c     | the program of all jobs: a line at its start, a line at its end           |
| work       | the jobs of a round, with the rule of their times                         |
| oracle     | when they were due, by arithmetic of its own                              |
| books      | what the jobs wrote down                                                  |
| ledger     | the rows of the history, read without schedulerd                          |
| judge      | the comparison                                                            |
| world      | a daemon, its disk, clock, store and what is done to them                 |
| nemeses/   | who does it                                                               |
| campaign   | rounds                                                                    |
| report     | the table, and the evidence                                               |
"""
