# Runs the commands between "--" and prints each of their lines behind the microsecond (CLOCK_MONOTONIC) in which it came.
use strict;
use warnings;
use IO::Select;
require(__FILE__ =~ s{[^/]*$}{clock.pl}r);

my @commands = ([]);
for (@ARGV) {
  if ($_ eq '--') { push @commands, [] }
  else { push @{$commands[-1]}, $_ }
}

my $readable = IO::Select->new;
my %rest;
for (@commands) {
  # With SIGKILL for this program, they end too.
  open my $output, '-|', 'setpriv', '--pdeathsig', 'KILL', @$_ or die "$_->[0]: $!\n";
  $readable->add($output);
  $rest{$output} = '';
}

$| = 1;
while ($readable->count) {
  for my $output ($readable->can_read) {
    # One that has ended is a gap in what the judge knows, and must not go by unseen.
    sysread $output, my $piece, 65536 or die "a command has ended\n";
    my $time = now();
    my @lines = split /\n/, $rest{$output} . $piece, -1;
    $rest{$output} = pop @lines;
    print map { "$time $_\n" } @lines if @lines;
  }
}
