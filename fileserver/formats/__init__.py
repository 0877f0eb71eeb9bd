"""Record formats: where records begin. One module a noun; nothing here reads, writes or imports anything of ours.

| module | what it knows |
| --- | --- |
| `fixed`, `csv` | the two formats as plain data, and what is wrong with one |
| `search` | the protocol of a search: it names byte ranges, is sent bytes, answers with a record start |
| `terminator` | a search where a terminator always ends a record |
| `deduce` | a search that proves from the quotes around the target whether it is inside quotes |
| `exact` | ranges scanned side by side by numpy, for tokens of one byte |
| `parity`, `turns` | which bytes of a block are inside quotes: the fast way, and the one for any data |
| `grammar` | any tokens, by one regular expression a record |
| `level` | tokens of one byte, and bytes made level for them |
| `runs` | quotes and their neighbours, by numpy |
| `tally` | what a scan has found so far |
| `records` | records one by one, counts of quotes, the look at the first bytes |
| `faults` | what can be wrong with the data |
"""
