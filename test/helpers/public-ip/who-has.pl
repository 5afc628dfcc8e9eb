# Asks again and again, by broadcast, who has each address, and prints who answers: who-has.pl INTERFACE MILLISECONDS ADDRESS...
#
# Lines: "asked MICROSECOND ROUND", "answer MICROSECOND ROUND ADDRESS MAC" and, for what nobody asked for,
# "announced MICROSECOND ADDRESS MAC". Each round asks from another address (192.168.255.N, fd00:53::ff:N), so that
# an answer tells to which round it belongs, however late it comes.
use strict;
use warnings;
use IO::Select;
use Socket qw(AF_INET AF_INET6 inet_ntop inet_pton);
require(__FILE__ =~ s{[^/]*$}{clock.pl}r);

use constant { AF_PACKET => 17, SOCK_RAW => 3, ARP => 0x0806, IPV6 => 0x86dd, ICMPV6 => 58 };
# The kernel keeps a neighbour for each of them, in one small table for all namespaces.
use constant SOURCES => 32;

my ($interface, $period, @addresses) = @ARGV;
my $index = first_line("/sys/class/net/$interface/ifindex");
my $mac = pack 'H12', first_line("/sys/class/net/$interface/address") =~ tr/://dr;
my @v4 = map { inet_pton(AF_INET, $_) } grep { !/:/ } @addresses;
my @v6 = map { inet_pton(AF_INET6, $_) } grep { /:/ } @addresses;

sub first_line {
  open my $file, '<', $_[0] or die "$_[0]: $!\n";
  chomp(my $line = <$file>);
  return $line;
}

sub packet_socket {
  my ($protocol) = @_;
  socket my $socket, AF_PACKET, SOCK_RAW, unpack('S', pack 'n', $protocol) or die "socket: $!\n";
  bind $socket, link_address($protocol) or die "bind: $!\n";
  return $socket;
}

sub link_address { return pack 'S n l S C C a8', AF_PACKET, $_[0], $index, 0, 0, 6, '' }

sub transmit {
  my ($socket, $protocol, $frame) = @_;
  # An interface that is down is a bad day, not a mistake.
  send $socket, $frame, 0, link_address($protocol);
}

sub source4 { return inet_pton(AF_INET, "192.168.255.$_[0]") }
sub source6 { return inet_pton(AF_INET6, sprintf 'fd00:53::ff:%x', $_[0]) }

sub arp_request {
  my ($target, $source) = @_;
  my $body = pack 'n n C C n a6 a4 a6 a4', 1, 0x0800, 6, 4, 1, $mac, source4($source), '', $target;
  return pack('a6 a6 n', "\xff" x 6, $mac, ARP) . $body;
}

sub neighbour_solicitation {
  my ($target, $source) = @_;
  my $from = source6($source);
  my $to = inet_pton(AF_INET6, 'ff02::1:ff00:0');
  substr($to, 13, 3) = substr $target, 13, 3;
  my $body = pack 'C C n N a16 C C a6', 135, 0, 0, 0, $target, 1, 1, $mac;
  my $sum = unpack '%32n*', $from . $to . pack('N N', length $body, ICMPV6) . $body;
  $sum = ($sum & 0xffff) + ($sum >> 16) while $sum > 0xffff;
  substr($body, 2, 2) = pack 'n', ~$sum & 0xffff;
  my $header = pack 'N n C C a16 a16', 6 << 28, length $body, ICMPV6, 255, $from, $to;
  return pack('a6 a6 n', "\x33\x33" . substr($to, 12, 4), $mac, IPV6) . $header . $body;
}

my (%round_of4, %round_of6);

sub said {
  my ($round, $address, $from) = @_;
  my $who = join ':', unpack '(H2)6', $from;
  print defined $round ? "answer ${\now()} $round $address $who\n" : "announced ${\now()} $address $who\n";
}

sub hear_arp {
  my ($frame) = @_;
  return if length $frame < 42;
  my ($operation, $from, $sender, $target) = unpack 'x20 n a6 a4 x6 a4', $frame;
  return if $from eq $mac;
  my $round = $round_of4{$target};
  said($round, inet_ntop(AF_INET, $sender), $from) if defined $round ? $operation == 2 : $sender eq $target;
}

sub hear_ipv6 {
  my ($frame) = @_;
  return if length $frame < 78;
  my ($from, $next, $to, $type, $target) = unpack 'x6 a6 x8 C x17 a16 C x7 a16', $frame;
  return if $next != ICMPV6 || $type != 136 || $from eq $mac;
  my $round = $round_of6{$to};
  said($round, inet_ntop(AF_INET6, $target), $from) if defined $round || $to eq inet_pton(AF_INET6, 'ff02::1');
}

my $arp = packet_socket(ARP);
my $ipv6 = packet_socket(IPV6);
my $readable = IO::Select->new($arp, $ipv6);

$| = 1;
my $round = 0;
for (my $next = now(); ; $next += $period * 1000) {
  # After a hold-up, no burst.
  $next = now() if $next < now() - 1_000_000;
  for (my $left; ($left = $next - now()) > 0;) {
    for my $socket ($readable->can_read($left / 1_000_000)) {
      next unless defined recv $socket, my $frame, 2048, 0;
      if ($socket == $arp) { hear_arp($frame) }
      else { hear_ipv6($frame) }
    }
  }
  $round++;
  my $source = $round % SOURCES;
  $round_of4{source4($source)} = $round_of6{source6($source)} = $round;
  print "asked ${\now()} $round\n";
  transmit($arp, ARP, arp_request($_, $source)) for @v4;
  transmit($ipv6, IPV6, neighbour_solicitation($_, $source)) for @v6;
}
