// Package flows keeps the live flows of the process: their numbers, their
// counters, the way to end them, and the one line that each leaves in the log.
//
// Rules and sources are counted where each flow passes anyway: a [Registry] opens,
// refuses and ends flows under one short lock. Bytes are counted by each flow alone;
// every few seconds [Registry.Sample] adds them up by source, some flows at a time, and
// keeps a minute of totals, from which the rates come. So nothing is added to the path
// of the data. Rules keep their counts over a reload by their name, and where they have
// none by what they say.
package flows
